//! Parts of the report that need nothing of each other are made at the same time.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{ScopedJoinHandle, scope};

/// What `work` makes of each item, in their order, in so many threads.
pub(super) fn spread<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if threads.min(items.len()) <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let share = || {
        let mut made = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return made };
            made.push((place, work(item)));
        }
    };
    let mut all = scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(share)).collect();
        let mut all = share();
        others.into_iter().for_each(|other| all.extend(joined(other)));
        all
    });
    all.sort_unstable_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, made)| made).collect()
}

/// Both, at the same time if there are more threads than one.
pub(crate) fn both<A, B: Send>(threads: usize, one: impl FnOnce() -> A, other: impl FnOnce() -> B + Send) -> (A, B) {
    if threads <= 1 {
        return (one(), other());
    }
    scope(|scope| {
        let other = scope.spawn(other);
        (one(), joined(other))
    })
}

/// What the thread made; its panic goes on here.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_items_for_any_number_of_threads() {
        let items: Vec<u32> = (0..1000).collect();
        let squares: Vec<u32> = items.iter().map(|n| n * n).collect();
        for threads in [0, 1, 2, 4] {
            assert_eq!(spread(threads, &items, |n| n * n), squares);
            assert_eq!(both(threads, || 1, || "two"), (1, "two"));
        }
        assert!(spread(2, &[] as &[u32], |n| *n).is_empty());
    }

    #[test]
    #[should_panic(expected = "as a test wants it")]
    fn a_panic_goes_on() {
        both(2, || (), || panic!("as a test wants it"));
    }
}
