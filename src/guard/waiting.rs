//! A call that waits for the budget: it may be made now, or it waits until there is a token for it.
//!
//! There is no queue. Each waiting call knows the time of its turn, sleeps until then, and checks again: the
//! breaker may have opened, or a call of higher priority may have gone first.

use std::pin::pin;
use std::time::Duration;

use super::admission::Admission;
use super::breaker::{self, Permit};
use super::budget::{Exhausted, Priority, Refused, Reservation};
use super::caller::Caller;
use super::share::Share;
use super::state::{Guard, Parts};
use super::subject_backoff::SubjectKey;
use super::suppressed::{SuppressReason, Suppressed};
use crate::clock::Ticks;

/// Jitter adds up to a tenth to the wait that a refused caller is told, and at most [`LONGEST_JITTER`]. So
/// callers that were refused at the same moment do not all come back at the same moment.
const JITTER_PART: u32 = 10;
const LONGEST_JITTER: Duration = Duration::from_secs(2);

/// Whether a call may leave now.
pub(super) enum Scheduled {
    /// The call may leave.
    Now(Admission),
    /// The call waits.
    Later(Waiting),
}

/// A call that waits. When dropped, it returns its reservation.
pub(super) struct Waiting {
    guard: Guard,
    caller: Caller,
    reservation: Option<Reservation>,
    queued_at: Ticks,
    due: Ticks,
}

/// What the parts decide, under the lock.
enum Step {
    Granted(Permit),
    Waits(Reservation, Duration),
}

impl Guard {
    /// Asks for permission to make one call now, about `subject` if there is one.
    ///
    /// # Errors
    /// [`Suppressed`] if the call may not be made now; then it has cost nothing.
    pub fn admit(&self, priority: Priority, subject: Option<SubjectKey>) -> Result<Admission, Suppressed> {
        match self.enqueue(Caller { priority, subject })? {
            Scheduled::Now(admission) => Ok(admission),
            Scheduled::Later(waiting) => Err(waiting.give_up()),
        }
    }

    /// Asks for permission to make one call, and waits for its turn if that is soon enough
    /// ([`BudgetSettings::wait`](super::BudgetSettings::wait)). Also returns how long it waited. If the
    /// breaker opens meanwhile, the wait ends.
    ///
    /// # Errors
    /// [`Suppressed`] if the call may not be made; then it has cost nothing.
    pub async fn admit_in_turn(
        &self,
        priority: Priority,
        subject: Option<SubjectKey>,
    ) -> Result<(Admission, Duration), Suppressed> {
        let mut turn = self.enqueue(Caller { priority, subject })?;
        loop {
            match turn {
                Scheduled::Now(admission) => {
                    let waited = admission.started.since(admission.queued_at);
                    return Ok((admission, waited));
                }
                Scheduled::Later(waiting) => {
                    waiting.until_due().await;
                    turn = waiting.try_again()?;
                }
            }
        }
    }

    /// Admits a call, or says how long it waits.
    pub(super) fn enqueue(&self, caller: Caller) -> Result<Scheduled, Suppressed> {
        let (mut parts, now) = self.lock();
        let step = parts.step(caller, None, now);
        if matches!(step, Ok(Step::Waits(..))) {
            parts.waiting += 1;
        }
        let lacks_share = !matches!(step, Ok(Step::Granted(_))) && parts.lacks_share(now);
        drop(parts);
        if lacks_share {
            self.tell();
        }
        match step.map_err(|suppressed| self.later(suppressed))? {
            Step::Granted(permit) => Ok(Scheduled::Now(self.admission(caller, permit, now, now))),
            Step::Waits(reservation, wait) => Ok(Scheduled::Later(Waiting {
                guard: self.clone(),
                caller,
                reservation: Some(reservation),
                queued_at: now,
                due: now.after(wait),
            })),
        }
    }

    fn admission(&self, caller: Caller, permit: Permit, queued_at: Ticks, started: Ticks) -> Admission {
        let transition = permit.transition();
        Admission { guard: self.clone(), permit: Some(permit), transition, queued_at, started, caller }
    }

    /// Lengthens the wait that a caller is told by jitter, if the budget is the reason.
    fn later(&self, suppressed: Suppressed) -> Suppressed {
        let is_budget = matches!(suppressed.reason, SuppressReason::Budget | SuppressReason::FirstSeenBudget);
        if !is_budget || !self.0.waits {
            return suppressed;
        }
        let most = (suppressed.retry_after / JITTER_PART).min(LONGEST_JITTER);
        let jitter = most.mul_f64((self.0.jitter)().clamp(0.0, 1.0));
        Suppressed { retry_after: suppressed.retry_after + jitter, ..suppressed }
    }
}

impl Waiting {
    /// Waits until it is this call's turn, the breaker opens, or the share of the budget changes.
    pub async fn until_due(&self) {
        let shared = &self.guard.0;
        let mut changed = pin!(shared.changed.notified());
        // Enabled before the parts are checked, so that a change in between is not missed.
        changed.as_mut().enable();
        let is_over = {
            let (parts, now) = self.guard.lock();
            let is_current = self.reservation.is_some_and(|reservation| parts.budget.is_current(reservation));
            parts.breaker.refusal(now).is_some() || !is_current
        };
        if is_over {
            return;
        }
        tokio::select! {
            () = shared.clock.sleep_until(self.due) => {}
            () = changed => {}
        }
    }

    /// Checks again whether the call may leave.
    pub fn try_again(mut self) -> Result<Scheduled, Suppressed> {
        let guard = self.guard.clone();
        let Some(reservation) = self.reservation.take() else { return guard.enqueue(self.caller) };
        let (mut parts, now) = guard.lock();
        match parts.step(self.caller, Some((reservation, self.due)), now) {
            Ok(Step::Waits(reservation, wait)) => {
                (self.reservation, self.due) = (Some(reservation), now.after(wait));
                drop(parts);
                Ok(Scheduled::Later(self))
            }
            Ok(Step::Granted(permit)) => {
                parts.waiting -= 1;
                drop(parts);
                Ok(Scheduled::Now(guard.admission(self.caller, permit, self.queued_at, now)))
            }
            Err(suppressed) => {
                parts.waiting -= 1;
                drop(parts);
                Err(guard.later(suppressed))
            }
        }
    }

    /// Gives up instead of waiting.
    pub fn give_up(self) -> Suppressed {
        let reason = match self.caller.priority {
            Priority::FirstSeen => SuppressReason::FirstSeenBudget,
            Priority::Foreground | Priority::Background => SuppressReason::Budget,
        };
        Suppressed { reason, retry_after: self.due.since(self.queued_at) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            let (mut parts, _) = self.guard.lock();
            parts.budget.cancel(reservation);
            parts.waiting -= 1;
        }
    }
}

impl Parts {
    /// Subject back-off and breaker are checked before the budget, so that a call that they refuse costs no
    /// token. The breaker's permit comes last, so that it never has to be given back.
    fn step(
        &mut self,
        caller: Caller,
        waited: Option<(Reservation, Ticks)>,
        now: Ticks,
    ) -> Result<Step, Suppressed> {
        if let Some(suppressed) = self.refusal(caller, now) {
            waited.into_iter().for_each(|(reservation, _)| self.budget.cancel(reservation));
            return Err(suppressed);
        }
        let trust = self.first_seen.trust(now);
        let (mut reservation, wait) = match waited {
            Some((reservation, due)) => match self.budget.renew(reservation, due, trust, now) {
                Ok(reserved) => reserved,
                Err(refused) => return Err(self.promise(caller, refused, now)),
            },
            None => {
                self.demand.count(now);
                let ahead = self.promises.ahead(caller, now);
                match self.budget.reserve(caller.priority, trust, ahead, now) {
                    Ok(reserved) => {
                        self.promises.redeem(caller);
                        reserved
                    }
                    Err(refused) => return Err(self.promise(caller, refused, now)),
                }
            }
        };
        if wait > Duration::ZERO {
            return Ok(Step::Waits(reservation, wait));
        }
        let wait = match self.budget.claim(&mut reservation, trust, now) {
            Ok(wait) => wait,
            Err(refused) => {
                self.budget.cancel(reservation);
                return Err(self.promise(caller, refused, now));
            }
        };
        if wait > Duration::ZERO {
            return Ok(Step::Waits(reservation, wait));
        }
        self.breaker.try_acquire(now).map(Step::Granted).map_err(|refused| {
            self.budget.cancel(reservation);
            breaker_open(refused)
        })
    }

    /// Whether this instance needs more of the budget than it has, and the others do not know it yet.
    fn lacks_share(&self, now: Ticks) -> bool {
        self.budget.share() != Share::WHOLE && self.demand.has_risen(self.budget.whole_rate(), now)
    }

    /// Refuses a caller because the budget is spent. The caller is told when to come back, and then goes
    /// first.
    fn promise(&mut self, caller: Caller, refused: Refused, now: Ticks) -> Suppressed {
        let reason = match refused.exhausted {
            Exhausted::Main => SuppressReason::Budget,
            Exhausted::FirstSeen => SuppressReason::FirstSeenBudget,
        };
        let retry_after = match self.budget.waits() {
            true => self.promises.give(caller, refused.retry_after, now),
            false => refused.retry_after,
        };
        Suppressed { reason, retry_after }
    }

    /// Why this call cannot leave, whatever the budget.
    fn refusal(&self, caller: Caller, now: Ticks) -> Option<Suppressed> {
        if let Some(retry_after) =
            caller.subject.and_then(|subject| self.subject_backoff.remaining(subject, now))
        {
            return Some(Suppressed { reason: SuppressReason::SubjectBackoff, retry_after });
        }
        if let Some(refused) = self.breaker.refusal(now) {
            return Some(breaker_open(refused));
        }
        let pause = self.first_seen.remaining(now).filter(|_| caller.priority == Priority::FirstSeen)?;
        Some(Suppressed { reason: SuppressReason::FirstSeenBudget, retry_after: pause })
    }
}

fn breaker_open(refused: breaker::Refused) -> Suppressed {
    Suppressed { reason: SuppressReason::BreakerOpen, retry_after: refused.retry_after }
}

#[cfg(test)]
mod tests;
