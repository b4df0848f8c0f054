//! Threads that share the work of the shards: who has nothing to do takes the next batch of any shard, and so does the reader when it is far
//! ahead. So no core waits while there is work, and there are no more threads than were asked for.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, panicking, spawn};

use crossbeam_channel::Sender;

use super::shard::{Batch, Part, Shard};
use crate::decode::Pile;
use crate::time::Timestamp;

/// With so many batches waiting the reader works as well: it is never more than a few megabytes ahead.
const SLACK: usize = 32;

/// The reader, and threads that help it.
pub(super) struct Crew {
    yard: Arc<Yard>,
    helpers: Vec<JoinHandle<()>>,
}

/// What all of them share.
struct Yard {
    board: Mutex<Board>,
    /// For helpers: there is more to do.
    work: Condvar,
    /// For the reader: something was done.
    done: Condvar,
}

/// What there is to do.
struct Board {
    shards: Vec<Slot>,
    /// How many share the work. Each takes from its own shards first: what these know is in its caches.
    hands: usize,
    /// Helpers that sleep.
    idle: usize,
    /// Memory of batches that were worked in: it is used again, rather than taken by one thread and given back by another.
    spare: Vec<Pile>,
    parts: Vec<(usize, Part)>,
    /// Nobody is to begin anything more.
    over: bool,
    /// A helper has panicked: what its shard knew is lost.
    broken: bool,
}

struct Slot {
    /// Away while somebody works on it.
    shard: Option<Box<Shard>>,
    jobs: VecDeque<Job>,
}

enum Job {
    Batch(Batch),
    Peek { all: bool, now: Timestamp, told: Sender<(usize, Part)> },
    Finish(Timestamp),
}

/// A shard that was taken, and what is to be done with it.
struct Taken {
    number: usize,
    shard: Box<Shard>,
    job: Job,
}

/// What came of it.
enum Done {
    Shard(usize, Box<Shard>, Option<Pile>),
    Part(usize, Box<Part>),
}

impl Taken {
    fn work(self) -> Done {
        let Self { number, mut shard, job } = self;
        match job {
            Job::Batch(batch) => {
                let pile = shard.work(batch);
                Done::Shard(number, shard, pile)
            }
            Job::Peek { all, now, told } => {
                // Whoever asked may have gone.
                drop(told.send((number, shard.peek(all, now))));
                Done::Shard(number, shard, None)
            }
            Job::Finish(now) => Done::Part(number, Box::new(shard.finish(now))),
        }
    }
}

impl Board {
    fn new(hands: usize, shards: impl Iterator<Item = Shard>) -> Self {
        let slot = |shard| Slot { shard: Some(Box::new(shard)), jobs: VecDeque::new() };
        Self {
            shards: shards.map(slot).collect(),
            hands,
            idle: 0,
            spare: Vec::new(),
            parts: Vec::new(),
            over: false,
            broken: false,
        }
    }

    fn put(&mut self, shard: usize, job: Job) {
        if let Some(slot) = self.shards.get_mut(shard).filter(|_| !self.broken) {
            slot.jobs.push_back(job);
        }
    }

    /// Jobs that nobody has begun.
    fn waiting(&self) -> usize {
        self.shards.iter().map(|slot| slot.jobs.len()).sum()
    }

    /// The next job of a shard that nobody works on: of those of `hand` first, then of the one for which most waits.
    fn take(&mut self, hand: usize) -> Option<Taken> {
        let hands = self.hands;
        let free = self.shards.iter_mut().enumerate().filter(|(_, slot)| slot.shard.is_some());
        let (number, slot) = free
            .filter(|(_, slot)| !slot.jobs.is_empty())
            .max_by_key(|(number, slot)| (number % hands == hand, slot.jobs.len()))?;
        Some(Taken { number, job: slot.jobs.pop_front()?, shard: slot.shard.take()? })
    }

    fn take_back(&mut self, done: Done) {
        match done {
            Done::Shard(number, shard, pile) => {
                if let Some(slot) = self.shards.get_mut(number) {
                    slot.shard = Some(shard);
                }
                self.spare.extend(pile);
            }
            Done::Part(number, part) => self.parts.push((number, *part)),
        }
    }
}

impl Yard {
    fn board(&self) -> MutexGuard<'_, Board> {
        // Nothing that can panic is done while it is held.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a job, and brings back what came of it.
    fn work<'y>(&'y self, board: MutexGuard<'y, Board>, taken: Taken) -> MutexGuard<'y, Board> {
        drop(board);
        let done = taken.work();
        let mut board = self.board();
        board.take_back(done);
        // What waits for this shard could not be begun by anybody else.
        if board.idle > 0 && board.waiting() > 0 {
            self.work.notify_one();
        }
        board
    }

    fn help(&self, hand: usize) {
        let _alarm = Alarm(self);
        let mut board = self.board();
        while !board.over && !board.broken {
            board = match board.take(hand) {
                Some(taken) => {
                    let board = self.work(board, taken);
                    self.done.notify_one();
                    board
                }
                None => {
                    board.idle += 1;
                    let mut board = self.work.wait(board).unwrap_or_else(PoisonError::into_inner);
                    board.idle -= 1;
                    board
                }
            }
        }
    }

    /// The reader works until `enough`.
    fn until(&self, enough: impl Fn(&Board) -> bool) -> MutexGuard<'_, Board> {
        let mut board = self.board();
        let hand = board.hands - 1;
        while !board.broken && !enough(&board) {
            board = match board.take(hand) {
                Some(taken) => self.work(board, taken),
                None => self.done.wait(board).unwrap_or_else(PoisonError::into_inner),
            };
        }
        board
    }
}

/// Tells the others when its thread panics.
struct Alarm<'y>(&'y Yard);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if panicking() {
            let mut board = self.0.board();
            board.broken = true;
            // Who waits to be told something is not told any more.
            board.shards.iter_mut().for_each(|slot| slot.jobs.clear());
            drop(board);
            self.0.done.notify_one();
            self.0.work.notify_all();
        }
    }
}

impl Crew {
    /// `threads`, of which the calling one is one.
    pub(super) fn new(threads: usize, shards: impl Iterator<Item = Shard>) -> Self {
        let board = Mutex::new(Board::new(threads, shards));
        let yard = Arc::new(Yard { board, work: Condvar::new(), done: Condvar::new() });
        let start = |hand| {
            let yard = yard.clone();
            spawn(move || yard.help(hand))
        };
        Self { helpers: (1..threads).map(|hand| start(hand - 1)).collect(), yard }
    }

    /// How many share the work, the calling one among them.
    pub(super) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Hands a batch over. Returns memory for another one, if there is some.
    pub(super) fn hand_over(&mut self, shard: usize, batch: Batch) -> Option<Pile> {
        self.put(shard, Job::Batch(batch));
        let mut board = self.yard.until(|board| board.waiting() < SLACK);
        if board.broken {
            drop(board);
            self.join();
            return None;
        }
        board.spare.pop()
    }

    /// Asks all shards what they would know if the capture ended now.
    pub(super) fn peek(&mut self, all: bool, now: Timestamp, told: &Sender<(usize, Part)>) {
        self.put_all(|| Job::Peek { all, now, told: told.clone() });
    }

    /// The capture is over: what all shards know.
    pub(super) fn finish(mut self, now: Timestamp) -> Vec<(usize, Part)> {
        let all = self.put_all(|| Job::Finish(now));
        let parts = std::mem::take(&mut self.yard.until(|board| board.parts.len() == all).parts);
        self.join();
        parts
    }

    /// Nobody helps any more. The panic of a helper goes on here.
    fn join(&mut self) {
        self.end();
        for helper in self.helpers.drain(..) {
            if let Err(panic) = helper.join() {
                resume_unwind(panic);
            }
        }
    }

    fn put(&self, shard: usize, job: Job) {
        let mut board = self.yard.board();
        board.put(shard, job);
        if board.idle > 0 {
            self.yard.work.notify_one();
        }
    }

    /// Gives every shard a job; how many there are.
    fn put_all(&self, job: impl Fn() -> Job) -> usize {
        let all = self.yard.board().shards.len();
        (0..all).for_each(|shard| self.put(shard, job()));
        all
    }

    fn end(&self) {
        self.yard.board().over = true;
        self.yard.work.notify_all();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::recorder::Recording;
    use super::super::shard::SHARDS;
    use super::*;
    use crate::flow::table::Limits;
    use crate::rule::threshold::Thresholds;

    fn shards() -> impl Iterator<Item = Shard> {
        let recording = Recording { thresholds: Thresholds::default(), all_flows: false, keep: None, progress: None };
        (0..SHARDS).map(move |_| Shard::new(&recording, Limits::default(), 7))
    }

    fn board(jobs: impl IntoIterator<Item = usize>) -> Board {
        let mut board = Board::new(2, shards());
        jobs.into_iter().for_each(|shard| board.put(shard, Job::Batch(Batch::default())));
        board
    }

    #[test]
    fn two_never_work_on_one_shard() {
        let mut board = board([1, 1]);
        let taken = board.take(0).expect("somebody else's shard is better than none");
        assert_eq!((taken.number, board.waiting()), (1, 1));
        assert!(board.take(1).is_none());
        board.take_back(taken.work());
        assert_eq!(board.take(1).map(|taken| taken.number), Some(1));
        assert_eq!((board.waiting(), board.spare.len()), (0, 1));
    }

    #[test]
    fn each_takes_of_its_own_shards_first_and_then_where_most_waits() {
        let mut board = board([0, 1, 1, 2, 2, 3]);
        let mut take = |hand| board.take(hand).map(|taken| taken.number);
        assert_eq!([take(0), take(0), take(0), take(0), take(0)], [Some(2), Some(0), Some(1), Some(3), None]);
    }

    #[test]
    fn the_reader_does_what_nobody_helps_with() {
        let mut crew = Crew::new(1, shards());
        for n in 0..3 * SLACK {
            crew.hand_over(n % SHARDS, Batch::default());
        }
        assert!(crew.yard.board().waiting() < SLACK);
        assert_eq!(crew.finish(Timestamp(0)).len(), SHARDS);
    }

    #[test]
    fn a_panic_of_a_helper_is_the_readers() {
        let broken = || {
            let mut crew = Crew::new(1, shards());
            let yard = crew.yard.clone();
            crew.helpers.push(spawn(move || {
                let _alarm = Alarm(&yard);
                panic!("as a test wants it");
            }));
            crew
        };
        assert!(catch_unwind(|| broken().finish(Timestamp(0))).is_err());
        let mut crew = broken();
        let (told, parts) = crossbeam_channel::unbounded();
        crew.peek(false, Timestamp(0), &told);
        drop(told);
        while !crew.yard.board().broken {
            std::thread::yield_now();
        }
        assert!(parts.recv().is_err(), "nobody waits for it in vain");
        assert!(catch_unwind(AssertUnwindSafe(|| crew.hand_over(0, Batch::default()))).is_err());
    }
}
