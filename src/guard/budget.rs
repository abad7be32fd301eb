//! The budget: how many calls to the issuer may be made, in which order, and who waits.
//!
//! A token bucket kept well under the tenant's limit, so that the tenant's own 429 is the exception.
//!
//! - [`Priority::Foreground`], a request that waits for the answer, may use all of it.
//! - [`Priority::Background`], the revalidation of a known record, may use only what is above a reserve. It
//!   never waits.
//! - [`Priority::FirstSeen`], a foreign token never seen before, also needs a place in a second bucket, since
//!   anyone can send any number of such tokens. While the issuer accepts them, they may use the whole budget.
//!   Each rejected token lowers their share towards a floor, see [`Trust`].
//!
//! **A call waits for its turn.** It is known when the next token grows back. So a caller gets a
//! [`Reservation`] ("call at T") and not a refusal, if T is at most [`BudgetSettings::wait`] away. There is
//! no queue: how many callers wait follows from the rate and the longest wait.
//!
//! **Users who are known go first.** A foreground call takes its token when it reserves. A first-seen token
//! reserves only its place among its own kind, and takes a token of the bucket when it leaves. So a
//! foreground call waits behind at most one first-seen call: the one that took the last token.
//!
//! **Learned downward.** `X-RateLimit-Remaining` can only lower what may be spent until the tenant's reset,
//! since other programs share that limit. It never raises the rate above the configured one.
//!
//! **Instances share it.** Each has a share of rate and burst ([`Budget::set_share`]); see
//! [`share`](super::share). A share that changes makes no tokens: a smaller bucket loses those that do not
//! fit, and a larger one fills at its rate.

mod settings;

use std::time::Duration;

pub use self::settings::{BudgetSettings, Plan};
use super::bucket::Bucket;
use super::first_seen::Trust;
use super::retry_after;
use super::share::Share;
use crate::clock::Ticks;

/// The longest `Retry-After` that results from callers who go first.
const LONGEST_PROMISE: Duration = Duration::from_secs(300);

/// How often the current rate may grow, and by which part of the configured rate.
const GROWTH_INTERVAL: Duration = Duration::from_secs(1);
const GROWTH_PART: f64 = 0.1;

/// By which factor a share must grow to be taken over.
const GROWTH_STEP: f64 = 1.05;

/// Who wants to make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Priority {
    /// A request of a known user, or with a token whose signature was verified, waits for it.
    Foreground,
    /// Nobody waits: the record is known and only needs revalidation.
    Background,
    /// A request waits, with a foreign token that was never seen before.
    FirstSeen,
}

/// Which bucket was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The bucket that all calls share, or what remains of the tenant's limit.
    Main,
    /// The share of first-seen tokens.
    FirstSeen,
}

/// The call may not be made now, and not soon enough to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When to ask again.
    pub retry_after: Duration,
    /// Which bucket was empty.
    pub exhausted: Exhausted,
}

/// A reserved call: [`Budget::claim`] uses the reservation, [`Budget::cancel`] returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    priority: Priority,
    since: Ticks,
    /// What it holds of the bucket that all calls share.
    held: Duration,
    /// What it holds of the bucket of first-seen tokens.
    place: Duration,
    /// The price of a call when it was made.
    price: Duration,
    /// Which share of the budget it was made under.
    revision: u64,
}

/// The budget of one endpoint of one issuer.
#[derive(Debug)]
pub struct Budget {
    main: Bucket,
    /// The bucket of first-seen tokens. It is as fast as the main bucket; with less trust each call costs
    /// more.
    line: Bucket,
    /// Calls at once after a quiet time, as configured.
    burst: u32,
    /// How many of them are kept for the foreground.
    reserved: u32,
    /// The share of this instance, if several share the budget.
    share: Share,
    /// How often the share has changed.
    revision: u64,
    /// The share of first-seen tokens without any trust.
    floor: f64,
    longest_wait: Duration,
    ceiling: Option<TenantLimit>,
    search: AdaptiveRate,
}

/// The current rate, between the configured one and the highest that may be tried.
#[derive(Debug)]
struct AdaptiveRate {
    least: f64,
    most: f64,
    rate: f64,
    /// When it may grow next.
    next: Ticks,
}

/// What `/status` shows of a budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetStatus {
    /// How many foreground calls could be made at once.
    pub available: u32,
    /// Calls a second in the long run, at the current rate.
    pub rate: f64,
    /// Calls at once after a quiet time, as configured.
    pub burst: u32,
    /// How many more calls the tenant accepts (`X-RateLimit-Remaining`), and how long until its limit is
    /// reset; `None` if it has not said, or after the reset.
    pub learned: Option<(u32, Duration)>,
}

/// What remains of the limit that the tenant announced.
#[derive(Clone, Copy, Debug)]
struct TenantLimit {
    calls: u32,
    until: Ticks,
}

impl Budget {
    /// A full budget.
    #[must_use]
    pub fn new(settings: &BudgetSettings) -> Self {
        let rate = if settings.rate.is_nan() { BudgetSettings::default().rate } else { settings.rate };
        let main = Bucket::full(rate, settings.burst);
        let burst = settings.burst.max(1);
        Self {
            burst,
            reserved: burst - part(burst, settings.background_share),
            share: Share::WHOLE,
            revision: 0,
            floor: share(settings.first_seen_share).max(1e-6),
            longest_wait: settings.wait,
            main,
            line: main,
            ceiling: None,
            search: AdaptiveRate {
                least: rate,
                most: settings.rate_max.unwrap_or(rate).max(rate),
                rate,
                next: Ticks::ZERO,
            },
        }
    }

    /// Raises the rate a little, at most once a second, while callers wait and the tenant sends no 429.
    fn grow(&mut self, now: Ticks) {
        let AdaptiveRate { least, most, rate, next } = &mut self.search;
        if *rate < *most && now >= *next {
            *next = now.after(GROWTH_INTERVAL);
            *rate = (*rate + *least * GROWTH_PART).min(*most);
            self.resize(now);
        }
    }

    /// The tenant answered 429.
    pub fn limited(&mut self, now: Ticks) {
        let AdaptiveRate { least, rate, next, .. } = &mut self.search;
        *next = now.after(GROWTH_INTERVAL);
        if *rate > *least {
            *rate = (*rate / 2.0).max(*least);
            self.resize(now);
        }
    }

    fn resize(&mut self, now: Ticks) {
        let (rate, size) = (self.search.rate * self.share.part, self.share.of_burst(self.burst));
        self.main.resize(rate, size, now);
        self.line.resize(rate, size, now);
    }

    /// Sets the share of rate and burst that this instance may use. Reservations that were made before have
    /// to be renewed. Returns whether the share has changed: it grows only by more than a twentieth, so
    /// that calls that wait do not renew their reservations all the time.
    pub fn set_share(&mut self, share: Share, now: Ticks) -> bool {
        let grows_little = share.instances == self.share.instances
            && share.part > self.share.part
            && share.part < self.share.part * GROWTH_STEP;
        if share == self.share || grows_little {
            return false;
        }
        self.share = share;
        self.revision += 1;
        self.resize(now);
        true
    }

    /// The share of rate and burst that this instance may use.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share
    }

    /// Calls a second in the long run, for all instances together.
    #[must_use]
    pub fn whole_rate(&self) -> f64 {
        self.search.rate
    }

    /// Whether the share is the one that this reservation was made under.
    #[must_use]
    pub fn is_current(&self, reservation: Reservation) -> bool {
        reservation.revision == self.revision
    }

    /// Makes a reservation again if the share has changed since; `due` is the end of its wait.
    ///
    /// # Errors
    /// [`Refused`] if the call would wait for longer than the longest wait of a call, from its beginning on.
    /// Then nothing is reserved.
    pub fn renew(
        &mut self,
        reservation: Reservation,
        due: Ticks,
        trust: Trust,
        now: Ticks,
    ) -> Result<(Reservation, Duration), Refused> {
        if self.is_current(reservation) {
            return Ok((reservation, due.since(now)));
        }
        self.cancel(reservation);
        let (mut renewed, wait) = self.reserve(reservation.priority, trust, 0, now)?;
        renewed.since = reservation.since;
        if now.since(reservation.since) + wait > self.longest_wait {
            self.cancel(renewed);
            return Err(Refused { retry_after: wait, exhausted: Exhausted::Main });
        }
        Ok((renewed, wait))
    }

    /// Reserves one call, and says how long until it may leave: zero if it may at once. `ahead` callers of
    /// its kind were told to come back soon, and go first.
    ///
    /// # Errors
    /// [`Refused`] if that is longer than a call of this priority waits; then nothing was reserved.
    pub fn reserve(
        &mut self,
        priority: Priority,
        trust: Trust,
        ahead: u32,
        now: Ticks,
    ) -> Result<(Reservation, Duration), Refused> {
        let is_first_seen = priority == Priority::FirstSeen;
        let place = if is_first_seen { self.place(trust) } else { Duration::ZERO };
        let charge = if is_first_seen { place } else { self.main.price() };
        let ahead = charge.saturating_mul(ahead);
        // These callers may never come back, so at most half of the bucket is kept for them.
        let capacity = self.main.capacity();
        let kept = ahead.min(self.longest_wait + (capacity / 2).min(capacity.saturating_sub(charge)));
        let (wait, in_line) = self.wait_behind(kept, priority, trust, now);
        let longest = if priority == Priority::Background { Duration::ZERO } else { self.longest_wait };
        if wait > longest {
            let exhausted = if in_line > Duration::ZERO { Exhausted::FirstSeen } else { Exhausted::Main };
            // Callers whom the issuer rejects do not come back, so they are not counted.
            let ahead = if is_first_seen { ahead.mul_f64(trust.as_share()) } else { ahead };
            let (room_in, _) = self.wait_behind(ahead, priority, trust, now);
            return Err(Refused { retry_after: room_in.min(LONGEST_PROMISE).max(longest), exhausted });
        }
        if wait > Duration::ZERO {
            self.grow(now);
        }
        let (price, revision) = (self.main.price(), self.revision);
        let mut reservation =
            Reservation { priority, since: now, held: Duration::ZERO, place, price, revision };
        self.line.take(place, now);
        if wait.is_zero() || priority == Priority::Foreground {
            reservation.held = self.main.price();
            self.main.take(reservation.held, now);
        }
        Ok((reservation, wait))
    }

    /// Uses a reservation whose time has come: zero if the call is made now, else how much longer it waits,
    /// because calls of higher priority went first or nothing remains of the tenant's limit.
    ///
    /// # Errors
    /// [`Refused`] if it would wait for longer than the longest wait of a call. Then cancel the reservation.
    pub fn claim(
        &mut self,
        reservation: &mut Reservation,
        trust: Trust,
        now: Ticks,
    ) -> Result<Duration, Refused> {
        let wait = if reservation.held.is_zero() {
            let reserve = self.reserve_against(reservation.priority, trust);
            self.main.wait(self.main.price(), reserve, now).max(self.wait_for_reset(reserve, now))
        } else {
            self.wait_for_reset(Duration::ZERO, now)
        };
        if wait > Duration::ZERO {
            if now.since(reservation.since) + wait > self.longest_wait {
                return Err(Refused { retry_after: wait, exhausted: Exhausted::Main });
            }
            return Ok(wait);
        }
        if reservation.held.is_zero() {
            reservation.held = self.main.price();
            self.main.take(reservation.held, now);
        }
        if let Some(ceiling) = &mut self.ceiling {
            ceiling.calls = ceiling.calls.saturating_sub(1);
        }
        Ok(Duration::ZERO)
    }

    /// Returns a reservation whose call was not made.
    pub fn cancel(&mut self, reservation: Reservation) {
        let price = self.main.price();
        let now_worth = |charge: Duration| match price == reservation.price {
            true => charge,
            false => charge.mul_f64(price.as_secs_f64() / reservation.price.as_secs_f64()),
        };
        self.main.give_back(now_worth(reservation.held));
        self.line.give_back(now_worth(reservation.place));
    }

    /// Learns from an answer that the tenant accepts `remaining` more calls until its limit is reset in
    /// `reset_in` (bounded to 1 s..5 min).
    ///
    /// Until then the lowest number counts: answers overtake each other, and each was written before the
    /// calls that are still under way. The time of the reset is that of the first answer. So a limit that
    /// refills all the time, and moves its reset with every answer, cannot keep an old number alive.
    pub fn observe(&mut self, remaining: u32, reset_in: Duration, now: Ticks) {
        match &mut self.ceiling {
            Some(ceiling) if now < ceiling.until => ceiling.calls = ceiling.calls.min(remaining),
            ceiling => {
                *ceiling =
                    Some(TenantLimit { calls: remaining, until: now.after(retry_after::bounded(reset_in)) })
            }
        }
    }

    /// How many foreground calls could be made at once at `now`.
    #[must_use]
    pub fn available(&self, now: Ticks) -> u32 {
        let tokens = self.main.level(now).as_micros() / self.main.price().as_micros();
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        match self.ceiling {
            Some(ceiling) if now < ceiling.until => tokens.min(ceiling.calls),
            _ => tokens,
        }
    }

    /// Its status at `now`.
    #[must_use]
    pub fn status(&self, now: Ticks) -> BudgetStatus {
        let learned = self.ceiling.filter(|ceiling| now < ceiling.until);
        BudgetStatus {
            available: self.available(now),
            rate: 1.0 / self.main.price().as_secs_f64(),
            burst: self.burst,
            learned: learned.map(|ceiling| (ceiling.calls, ceiling.until.since(now))),
        }
    }

    /// What a call costs in the bucket of first-seen tokens.
    fn place(&self, trust: Trust) -> Duration {
        let share = self.floor + (1.0 - self.floor) * trust.as_share();
        // Rounded up to the clock's unit, so that the share is never exceeded.
        Duration::from_micros((self.main.price().as_micros() as f64 / share).ceil() as u64)
    }

    /// What a call of this priority must leave in the main bucket.
    fn reserve_against(&self, priority: Priority, trust: Trust) -> Duration {
        let reserve = self.main.price().mul_f64(f64::from(self.reserved) * self.share.part);
        match priority {
            Priority::Foreground => Duration::ZERO,
            Priority::Background => reserve,
            Priority::FirstSeen => reserve.mul_f64(1.0 - trust.as_share()),
        }
    }

    /// How long until the tenant's reset, if its remaining limit does not allow a call above `reserve`.
    fn wait_for_reset(&mut self, reserve: Duration, now: Ticks) -> Duration {
        if self.ceiling.is_some_and(|ceiling| now >= ceiling.until) {
            self.ceiling = None;
        }
        match self.ceiling {
            Some(ceiling)
                if self.main.price().saturating_mul(ceiling.calls) < reserve + self.main.price() =>
            {
                ceiling.until.since(now)
            }
            _ => Duration::ZERO,
        }
    }

    /// How long a call waits behind this much of its bucket, and how much of that is for the bucket of
    /// first-seen tokens.
    fn wait_behind(
        &mut self,
        ahead: Duration,
        priority: Priority,
        trust: Trust,
        now: Ticks,
    ) -> (Duration, Duration) {
        let reserve = self.reserve_against(priority, trust);
        let (in_line, ahead) = match priority {
            Priority::FirstSeen => (self.line.wait(self.place(trust), ahead, now), Duration::ZERO),
            Priority::Foreground | Priority::Background => (Duration::ZERO, ahead),
        };
        let main = self.main.wait(self.main.price(), reserve + ahead, now);
        (in_line.max(main).max(self.wait_for_reset(reserve, now)), in_line)
    }

    /// Whether calls may wait for their turn.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.longest_wait.is_zero()
    }
}

/// A share clamped to 0 to 1; NaN is 0.
fn share(share: f64) -> f64 {
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
}

/// A share of a number of calls, at least one of them unless the share is 0.
fn part(calls: u32, of: f64) -> u32 {
    let part = (f64::from(calls) * share(of)).floor() as u32;
    if share(of) > 0.0 { part.max(1) } else { part }
}

#[cfg(test)]
mod tests;
