//! Whether mysqld hangs, or is only kept waiting for a CPU.
//!
//! On a host with far too much to do a canary's answer is late although mysqld is well: it is runnable and gets no CPU. A
//! change of primary would add to the load and end up no better. So the time that a thread has waited for a CPU meanwhile
//! does not count towards a canary's age, or at most three quarters of that age do not: who gets nothing done for very
//! long is no primary, whatever the reason. A process that is stopped, or waits for a lock or a disk, waits for no CPU.
//!
//! Source: `/proc/<pid>/task/<tid>/schedstat`, whose second number is the time on a run queue, in nanoseconds (Linux,
//! `Documentation/scheduler/sched-stats.rst`). Without it every age counts in full.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::instance::Instance;

/// From this age of an answer on it is looked at who waits for a CPU.
const SUSPICIOUS: Duration = Duration::from_millis(800);
/// Pace of looking.
const PACE: Duration = Duration::from_millis(200);

/// Time that each thread of some processes has spent waiting for a CPU since it began.
type Waited = HashMap<(i32, i32), Duration>;

/// Reads it. Threads that end meanwhile are left out.
fn waited(processes: &[i32]) -> Waited {
    let mut all = Waited::new();
    for process in processes {
        let folder = format!("/proc/{process}/task");
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let thread = entry.file_name().to_string_lossy().parse::<i32>();
            if let (Ok(thread), Some(time)) = (thread, run_delay(&entry.path().join("schedstat"))) {
                all.insert((*process, thread), time);
            }
        }
    }
    all
}

fn run_delay(path: &Path) -> Option<Duration> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// The longest that a thread has waited for a CPU between two looks; one that is new has waited since it began.
fn longest(before: &Waited, now: &Waited) -> Duration {
    now.iter()
        .map(|(thread, time)| time.saturating_sub(before.get(thread).copied().unwrap_or_default()))
        .max()
        .unwrap_or_default()
}

/// An answer's age without the time in which there was no CPU to answer with.
pub fn discounted(age: Duration, starved: Duration) -> Duration {
    age.saturating_sub(starved.min(age / 4 * 3))
}

/// Watches mysqld and this process while an answer is late.
pub async fn watch(instance: Arc<Instance>) {
    let mut suspected: Option<(i32, Instant, Waited)> = None;
    loop {
        tokio::time::sleep(PACE).await;
        let child = instance.child().map(|child| child.pid());
        let answered = instance.look(|facts| facts.canary.map(|(session, login)| session.min(login)));
        let (Some(pid), Some(answered)) = (child, answered.filter(|at| at.elapsed() > SUSPICIOUS)) else {
            if suspected.take().is_some() {
                instance.change_quietly(|facts| facts.starved = Duration::ZERO);
            }
            continue;
        };
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let Ok(now) = tokio::task::spawn_blocking(move || waited(&[pid, own])).await else { continue };
        match &suspected {
            Some((of, since, before)) if *of == pid && *since == answered => {
                let starved = longest(before, &now);
                instance.change_quietly(|facts| facts.starved = starved);
            }
            // Another answer came, and the next one is late again: what was waited for the first is over.
            _ => {
                instance.change_quietly(|facts| facts.starved = Duration::ZERO);
                suspected = Some((pid, answered, now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_cpu_does_not_count_up_to_three_quarters() {
        let ms = Duration::from_millis;
        assert_eq!(discounted(ms(2000), ms(0)), ms(2000));
        assert_eq!(discounted(ms(2000), ms(800)), ms(1200));
        assert_eq!(discounted(ms(2000), ms(9000)), ms(500));
        assert_eq!(discounted(ms(100), ms(9000)), ms(25));
    }

    #[test]
    fn the_thread_that_waited_longest_counts() {
        let ms = Duration::from_millis;
        let before = Waited::from([((1, 1), ms(500)), ((1, 2), ms(0))]);
        let now = Waited::from([((1, 1), ms(600)), ((1, 2), ms(30)), ((1, 3), ms(70))]);
        assert_eq!(longest(&before, &now), ms(100));
        assert_eq!(longest(&before, &Waited::new()), ms(0));
        assert_eq!(longest(&Waited::new(), &Waited::from([((1, 3), ms(70))])), ms(70));
    }

    #[test]
    fn who_has_to_share_a_cpu_waits_and_who_sleeps_does_not() {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let before = waited(&[own]);
        assert!(!before.is_empty(), "no schedstat here");
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let busy: Vec<_> = (0..cores * 4)
            .map(|_| {
                std::thread::spawn(|| {
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_millis(400) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        let shared = longest(&before, &waited(&[own]));
        for thread in busy {
            assert!(thread.join().is_ok());
        }
        assert!(shared > Duration::from_millis(50), "four threads a core, and none has waited more than {shared:?}");
    }
}
