//! How much memory may all requests under way hold together?
//!
//! Memory is asked for before it is taken: from what a header promises, and by what a body is known to become. So a
//! process never grows beyond its [`Budget`] for what strangers send, and whoever finds it used up is told to come
//! again. What one request holds is its [`Lease`], given back when the last part of its reply has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::{Failure, Kind};

/// What the machine's memory is divided by, where nobody says how much requests may hold.
const SHARE: usize = 4;
/// Whoever holds no more may take from the last quarter as well: small requests are answered while large ones wait.
const SMALL: usize = 1 << 20;

/// The bytes that all requests under way may hold.
#[derive(Debug)]
pub struct Budget {
    max: usize,
    used: AtomicUsize,
}

impl Budget {
    /// One of `max` bytes.
    pub fn new(max: usize) -> Arc<Budget> {
        Arc::new(Budget { max, used: AtomicUsize::new(0) })
    }

    /// All of it.
    pub fn max(&self) -> usize {
        self.max
    }

    /// What is held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so much is held that those are let go who hold what they do not use.
    pub fn is_used_up(&self) -> bool {
        self.used() >= self.max / 2
    }

    /// Nothing yet, of this.
    pub fn lease(self: &Arc<Budget>) -> Lease {
        Lease { budget: Arc::clone(self), held: AtomicUsize::new(0) }
    }

    /// How much there is for who holds `held` already.
    fn open_to(&self, held: usize) -> usize {
        if held <= SMALL { self.max } else { self.max / 4 * 3 }
    }
}

/// A quarter of what this process may have: of its control group's limit, or of the machine.
pub fn default_max() -> usize {
    let limits = [memory_of_group(), memory_of_machine()];
    limits.into_iter().flatten().min().unwrap_or(4 << 30) / SHARE
}

/// The limit of the control group that this process is in, of either version.
fn memory_of_group() -> Option<usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some(format!("/sys/fs/cgroup/{path}/memory.max")),
            "memory" => Some(format!("/sys/fs/cgroup/memory/{path}/memory.limit_in_bytes")),
            _ => None,
        }
    });
    // In a container, its own group is mounted at the root.
    let mounted = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = |path: String| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    own.chain(mounted.map(str::to_owned)).filter_map(limit).min()
}

fn memory_of_machine() -> Option<usize> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().trim_end_matches("kB").trim().parse::<usize>().ok().map(|kib| kib << 10)
}

/// What one request holds; given back when it is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    held: AtomicUsize,
}

impl Lease {
    /// What it holds.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// `Kind::TooLarge` for what would never fit, `Kind::Overloaded` for what others are to give back first.
    pub fn take(&self, bytes: usize) -> Result<(), Failure> {
        let held = self.held().saturating_add(bytes);
        let open = self.budget.open_to(held);
        if held > open {
            return Err(Failure::new(
                Kind::TooLarge,
                format!(
                    "this request would take {} of memory, and one may take {} (of `requests_bytes_max`, {}); send it \
                     in parts",
                    shown(held),
                    shown(open),
                    shown(self.budget.max)
                ),
            ));
        }
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= open)
        });
        match taken {
            Ok(_) => {
                self.held.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(used) => Err(Failure::new(
                Kind::Overloaded,
                format!(
                    "the requests under way hold {} of memory, which leaves no room for {} more \
                     (`requests_bytes_max`, {})",
                    shown(used),
                    shown(bytes),
                    shown(self.budget.max)
                ),
            )
            .again_after(Duration::from_secs(1))),
        }
    }

    /// Another one of the same budget, which holds nothing yet.
    pub fn apart(&self) -> Lease {
        self.budget.lease()
    }

    /// Gives back what is no longer needed.
    pub fn give_back(&self, bytes: usize) {
        let given = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(bytes)));
        let held = given.unwrap_or_default();
        self.budget.used.fetch_sub(bytes.min(held), Ordering::Relaxed);
    }

    /// Takes `bytes` for as long as the part is kept.
    ///
    /// # Errors
    /// As [`Lease::take`].
    pub fn part(self: &Arc<Lease>, bytes: usize) -> Result<Part, Failure> {
        self.take(bytes)?;
        Ok(Part { of: Arc::clone(self), held: AtomicUsize::new(bytes) })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held(), Ordering::Relaxed);
    }
}

/// A part of what a request holds, such as one batch of many; given back when it is dropped.
#[derive(Debug)]
pub struct Part {
    of: Arc<Lease>,
    held: AtomicUsize,
}

impl Part {
    /// Holds `bytes` more.
    ///
    /// # Errors
    /// As [`Lease::take`].
    pub fn grow(&self, bytes: usize) -> Result<(), Failure> {
        self.of.take(bytes)?;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Holds `bytes` from now on, and no longer what it held.
    ///
    /// # Errors
    /// As [`Lease::take`]; then it holds what it held.
    pub fn hold(&self, bytes: usize) -> Result<(), Failure> {
        self.of.take(bytes)?;
        self.of.give_back(self.held.swap(bytes, Ordering::Relaxed));
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.give_back(self.held.load(Ordering::Relaxed));
    }
}

/// Bytes as people say them.
fn shown(bytes: usize) -> String {
    match bytes {
        0..0x400 => format!("{bytes} bytes"),
        0x400..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_taken_is_given_back() {
        let budget = Budget::new(64 * MIB);
        let lease = Arc::new(budget.lease());
        lease.take(10 * MIB).unwrap();
        let part = lease.part(5 * MIB).unwrap();
        assert_eq!((budget.used(), lease.held()), (15 * MIB, 15 * MIB));
        part.grow(MIB).unwrap();
        part.hold(7 * MIB).unwrap();
        assert_eq!((budget.used(), lease.held()), (17 * MIB, 17 * MIB));
        assert_eq!(part.hold(40 * MIB).unwrap_err().kind(), Kind::TooLarge);
        drop(part);
        assert_eq!(budget.used(), 10 * MIB);
        lease.give_back(usize::MAX);
        assert_eq!((budget.used(), lease.held()), (0, 0));
        lease.take(MIB).unwrap();
        drop(lease);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_never_fits_is_too_large_and_what_others_hold_overloads() {
        let budget = Budget::new(64 * MIB);
        let (first, second) = (budget.lease(), budget.lease());
        assert_eq!(first.take(usize::MAX).unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(first.take(49 * MIB).unwrap_err().kind(), Kind::TooLarge);
        first.take(48 * MIB).unwrap();
        let refused = second.take(2 * MIB).unwrap_err();
        assert_eq!((refused.kind(), refused.retry_after()), (Kind::Overloaded, Some(Duration::from_secs(1))));
        // What was refused is not held.
        assert_eq!((budget.used(), second.held()), (48 * MIB, 0));
        // The last quarter is for the small ones.
        let small: Vec<Lease> = (0..16).map(|_| budget.lease()).collect();
        small.iter().for_each(|lease| lease.take(MIB).unwrap());
        assert_eq!(budget.lease().take(1).unwrap_err().kind(), Kind::Overloaded);
        drop(first);
        second.take(2 * MIB).unwrap();
    }

    #[test]
    fn a_machine_has_memory() {
        assert!(default_max() >= 16 * MIB, "{}", default_max());
    }
}
