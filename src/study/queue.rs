//! A queue of work. It can be listed, reordered and shortened while it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Cancel, Session, Size, StudyError};

/// The state of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemState {
    /// The item waits for its turn.
    Waiting,
    /// The item runs.
    Running,
    /// The item is done.
    Done,
    /// The item was cancelled.
    Cancelled,
    /// The item ended with this error.
    Failed(String),
}

/// One item of work.
#[derive(Clone, Debug)]
pub struct Item<T> {
    /// The item's number, which is unique in the queue.
    pub id: u64,
    /// A description in a few words.
    pub label: String,
    /// The amount of work.
    pub size: Size,
    /// The state.
    pub state: ItemState,
    /// The work itself.
    pub work: T,
    cancel: Cancel,
}

/// A queue of items. All clones are the same queue, so one thread can work on it while another
/// shows it.
#[derive(Debug)]
pub struct Queue<T> {
    items: Arc<Mutex<Vec<Item<T>>>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone() }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { items: Arc::default() }
    }
}

impl<T: Clone> Queue<T> {
    /// Adds an item at the end and returns its number.
    pub fn push(&self, label: impl Into<String>, size: Size, work: T) -> u64 {
        let mut items = self.lock();
        let id = items.iter().map(|item| item.id + 1).max().unwrap_or(0);
        let (label, state, cancel) = (label.into(), ItemState::Waiting, Cancel::default());
        items.push(Item { id, label, size, state, work, cancel });
        id
    }

    /// All items, in the order of their execution.
    pub fn list(&self) -> Vec<Item<T>> {
        self.lock().clone()
    }

    /// Moves a waiting item to an index of the list, but not before an item that has begun. An item
    /// that does not wait is not moved.
    pub fn move_to(&self, id: u64, place: usize) {
        let mut items = self.lock();
        let Some(from) = items.iter().position(|item| item.id == id && item.state == ItemState::Waiting) else {
            return;
        };
        let item = items.remove(from);
        let begun = items.iter().rposition(|item| item.state != ItemState::Waiting).map_or(0, |last| last + 1);
        let place = place.clamp(begun.min(items.len()), items.len());
        items.insert(place, item);
    }

    /// Cancels an item that waits or runs. The other items continue.
    pub fn cancel(&self, id: u64) {
        if let Some(item) = self.lock().iter_mut().find(|item| item.id == id) {
            item.cancel.cancel();
            if item.state == ItemState::Waiting {
                item.state = ItemState::Cancelled;
            }
        }
    }

    /// The size of all items that wait or run.
    pub fn left(&self) -> Size {
        let left = |item: &&Item<T>| matches!(item.state, ItemState::Waiting | ItemState::Running);
        self.lock().iter().filter(left).map(|item| item.size).sum()
    }

    /// Executes all items in turn, including items that are added meanwhile. Cancelled items are
    /// left out.
    ///
    /// # Errors
    /// [`StudyError::Cancelled`], after which the interrupted item waits again. If an item fails,
    /// the queue stops and returns the item's error.
    pub fn run(
        &self,
        session: &Session,
        mut work: impl FnMut(&Item<T>) -> Result<(), StudyError>,
    ) -> Result<(), StudyError> {
        while let Some(item) = self.begin() {
            session.set_left(self.left());
            session.set_item(item.cancel.clone());
            let done = session.check_cancelled().and_then(|()| work(&item));
            session.set_item(Cancel::default());
            let (state, done) = match done {
                Ok(()) => (ItemState::Done, Ok(())),
                Err(StudyError::Skipped) => (ItemState::Cancelled, Ok(())),
                Err(error) if error.is_cancelled() => (ItemState::Waiting, Err(error)),
                Err(error) => (ItemState::Failed(error.to_string()), Err(error)),
            };
            self.set(item.id, state);
            session.set_left(self.left());
            done?;
        }
        Ok(())
    }

    /// Starts the first waiting item and returns it.
    fn begin(&self) -> Option<Item<T>> {
        let mut items = self.lock();
        let item = items.iter_mut().find(|item| item.state == ItemState::Waiting)?;
        item.state = ItemState::Running;
        Some(item.clone())
    }

    fn set(&self, id: u64, state: ItemState) {
        if let Some(item) = self.lock().iter_mut().find(|item| item.id == id) {
            item.state = state;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Item<T>>> {
        // A panic cannot leave the list in a partial state, so the lock's poison is ignored.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &Queue<char>) -> String {
        queue.list().iter().map(|item| item.work).collect()
    }

    fn queue() -> Queue<char> {
        let queue = Queue::default();
        for work in "abcde".chars() {
            queue.push(work, Size::run(10, 1.0), work);
        }
        queue
    }

    #[test]
    fn items_move_but_never_before_what_has_begun() {
        let queue = queue();
        queue.move_to(4, 0);
        assert_eq!(order(&queue), "eabcd");
        let running = queue.begin().unwrap();
        assert_eq!(running.work, 'e');
        queue.move_to(3, 0);
        queue.move_to(4, 3);
        queue.move_to(0, 99);
        queue.move_to(77, 1);
        assert_eq!(order(&queue), "edbca");
    }

    #[test]
    fn cancelled_items_do_not_count() {
        let queue = queue();
        assert_eq!(queue.left(), Size::run(10, 1.0).times(5));
        queue.begin();
        queue.cancel(1);
        queue.cancel(3);
        assert_eq!(queue.left(), Size::run(10, 1.0).times(3));
        queue.set(0, ItemState::Done);
        assert_eq!(queue.begin().unwrap().work, 'c');
        assert_eq!(queue.left().steps, 20);
    }
}
