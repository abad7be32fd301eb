//! File descriptors: how many this process may have, and how they are shared out.
//!
//! Every connection takes one, and so do the files of the disk store, Redis, the issuer and the admin
//! listener. If the proxies' connections took all of them, even the admin listener could not answer. So a
//! part is reserved, and the rest bounds the connections.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// How the descriptors are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The most connections of each auth listener.
    pub auth: usize,
    /// The most connections of the admin listener.
    pub admin: usize,
}

/// Raises the soft limit to the hard limit, and divides the descriptors. `wanted` is `auth.max_connections`,
/// for each of the `listeners` auth listeners. Logs a warning if there are fewer.
#[must_use]
pub fn share_out(wanted: usize, listeners: usize) -> Shares {
    let limit = raise();
    let shares = Shares::of(limit, wanted, listeners);
    if shares.auth < wanted {
        warn!(
            "there are {limit} file descriptors, so each auth listener takes {} connections, not \
             max_connections = {wanted}; raise the hard limit (systemd: LimitNOFILE=, containers: ulimits, \
             shell: ulimit -Hn)",
            shares.auth
        );
    } else {
        info!("there are {limit} file descriptors, enough for max_connections = {wanted}");
    }
    shares
}

impl Shares {
    /// Reserves a quarter of the descriptors: at least 64, at most 1,024, and at most half.
    fn of(limit: usize, wanted: usize, listeners: usize) -> Self {
        let kept = (limit / 4).clamp(64, 1024).min(limit / 2);
        let most = (limit - kept) / listeners.max(1);
        Self { auth: wanted.min(most).max(1), admin: (kept / 4).max(1) }
    }
}

/// Raises the soft limit. Returns the limit that is then in force.
fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised =
        current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    limit.and_then(|limit| limit.try_into().ok()).unwrap_or(usize::MAX)
}

/// Whether accepting failed because descriptors or the kernel's memory are used up. Every other error
/// concerns only the connection that was being accepted (accept(2)), not the next one.
#[must_use]
pub fn are_out(error: &io::Error) -> bool {
    let out = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| out.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_take_what_is_kept_for_others() {
        for (limit, wanted, listeners, auth, admin) in [
            (20_000, 10_000, 1, 10_000, 256),
            (20_000, 10_000, 2, 9_488, 256),
            (1_024, 10_000, 1, 768, 64),
            (1_024, 100, 2, 100, 64),
            (256, 10_000, 1, 192, 16),
            (64, 10_000, 1, 32, 8),
            (1, 10_000, 3, 1, 1),
            (usize::MAX, 1_000_000, 2, 1_000_000, 256),
        ] {
            assert_eq!(Shares::of(limit, wanted, listeners), Shares { auth, admin }, "{limit} {wanted}");
        }
    }

    #[test]
    fn only_an_error_of_the_whole_process_or_machine_pauses_accepting() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(are_out(&errno.into()), "{errno}");
        }
        let of_one =
            [Errno::CONNABORTED, Errno::PROTO, Errno::PERM, Errno::NETDOWN, Errno::HOSTUNREACH, Errno::INTR];
        for errno in of_one {
            assert!(!are_out(&errno.into()), "{errno}");
        }
        assert!(!are_out(&io::Error::other("something else")));
    }
}
