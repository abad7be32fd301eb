//! Rate limits as Auth0 has them: one for the whole tenant, one for each user.
//!
//! A token bucket that knows no clock: `now` is an argument. It counts in exact steps under one lock, so a
//! test may assert that no more than `burst + per_second · t` calls were let through.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A burst at once, then a rate a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// How many calls a full bucket allows at once.
    pub burst: u32,
    /// How many calls a second flow back into the bucket; 0 for never.
    pub per_second: f64,
}

impl RateLimit {
    /// Auth0's limit for one user at `/userinfo`: 10 at once, then 5 a minute.
    pub const AUTH0_PER_USER: Self = Self { burst: 10, per_second: 5.0 / 60.0 };

    /// `burst` calls at once, then `per_second` a second.
    #[must_use]
    pub const fn new(burst: u32, per_second: f64) -> Self {
        Self { burst, per_second }
    }
}

/// The result of a bucket for one call, for the `x-ratelimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grant {
    pub(crate) allowed: bool,
    /// The bucket's size.
    pub(crate) limit: u32,
    /// How many more calls would pass now.
    pub(crate) remaining: u32,
    /// How long until one more call passes; `None` if never.
    pub(crate) next_in: Option<Duration>,
}

/// Both limits, with the state of every bucket.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    tenant: Option<Bucket>,
    per_user: Option<RateLimit>,
    users: HashMap<String, Bucket>,
}

impl Limits {
    pub(crate) fn new(tenant: Option<RateLimit>, per_user: Option<RateLimit>, now: Instant) -> Self {
        Self { tenant: tenant.map(|limit| Bucket::full(limit, now)), per_user, users: HashMap::new() }
    }

    /// Replaces the tenant's limit by a full bucket.
    pub(crate) fn set_tenant(&mut self, limit: Option<RateLimit>, now: Instant) {
        self.tenant = limit.map(|limit| Bucket::full(limit, now));
    }

    /// Replaces the limit of every user by full buckets.
    pub(crate) fn set_per_user(&mut self, limit: Option<RateLimit>) {
        self.per_user = limit;
        self.users.clear();
    }

    /// One call to the tenant; `None` if it has no limit.
    pub(crate) fn take_tenant(&mut self, now: Instant) -> Option<Grant> {
        self.tenant.as_mut().map(|bucket| bucket.take(now))
    }

    /// One call for `subject`; `None` if users have no limit.
    pub(crate) fn take_user(&mut self, subject: &str, now: Instant) -> Option<Grant> {
        let limit = self.per_user?;
        let bucket = self.users.entry(subject.to_owned()).or_insert_with(|| Bucket::full(limit, now));
        Some(bucket.take(now))
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    limit: RateLimit,
    level: f64,
    filled_at: Instant,
}

impl Bucket {
    fn full(limit: RateLimit, now: Instant) -> Self {
        Self { limit, level: f64::from(limit.burst), filled_at: now }
    }

    fn take(&mut self, now: Instant) -> Grant {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.level = (self.level + passed * self.limit.per_second).min(f64::from(self.limit.burst));
        self.filled_at = now.max(self.filled_at);
        let allowed = self.level >= 1.0;
        if allowed {
            self.level -= 1.0;
        }
        Grant {
            allowed,
            limit: self.limit.burst,
            // `as` saturates, and the level is never negative.
            remaining: self.level as u32,
            next_in: self.next_in(),
        }
    }

    fn next_in(&self) -> Option<Duration> {
        let missing = 1.0 - self.level;
        if missing <= 0.0 {
            return Some(Duration::ZERO);
        }
        Duration::try_from_secs_f64(missing / self.limit.per_second).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate_exactly() {
        let start = Instant::now();
        let mut limits = Limits::new(Some(RateLimit::new(3, 2.0)), None, start);
        let allowed = |limits: &mut Limits, millis| {
            let grant = limits.take_tenant(start + Duration::from_millis(millis)).unwrap();
            (grant.allowed, grant.remaining)
        };
        assert_eq!(allowed(&mut limits, 0), (true, 2));
        assert_eq!(allowed(&mut limits, 0), (true, 1));
        assert_eq!(allowed(&mut limits, 0), (true, 0));
        assert_eq!(allowed(&mut limits, 0), (false, 0));
        assert_eq!(allowed(&mut limits, 499), (false, 0));
        assert_eq!(allowed(&mut limits, 500), (true, 0));
        assert_eq!(allowed(&mut limits, 600), (false, 0));
        assert_eq!(allowed(&mut limits, 60_000), (true, 2), "a full bucket does not grow over its burst");
    }

    #[test]
    fn a_refusal_tells_when_the_next_call_passes() {
        let start = Instant::now();
        let mut limits = Limits::new(Some(RateLimit::new(1, 0.5)), None, start);
        assert!(limits.take_tenant(start).unwrap().allowed);
        assert_eq!(limits.take_tenant(start).unwrap().next_in, Some(Duration::from_secs(2)));
        let mut never = Limits::new(Some(RateLimit::new(0, 0.0)), None, start);
        let grant = never.take_tenant(start).unwrap();
        assert!(!grant.allowed);
        assert_eq!(grant.next_in, None);
    }

    #[test]
    fn each_user_has_a_bucket_of_their_own() {
        let start = Instant::now();
        let mut limits = Limits::new(None, Some(RateLimit::new(1, 0.0)), start);
        assert!(limits.take_tenant(start).is_none());
        assert!(limits.take_user("auth0|alice", start).unwrap().allowed);
        assert!(!limits.take_user("auth0|alice", start).unwrap().allowed);
        assert!(limits.take_user("auth0|bob", start).unwrap().allowed);
    }
}
