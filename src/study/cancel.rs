//! A token that ends a study from another thread.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Ends a study, or one item of a queue, from any thread. Clones are the same token.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// Keeps the channel open. Dropping the sender is the signal, which all receivers see from then
    /// on.
    open: Arc<Mutex<Option<Sender<()>>>>,
    signal: Receiver<()>,
}

impl Default for Cancel {
    fn default() -> Self {
        let (open, signal) = bounded(0);
        Self { open: Arc::new(Mutex::new(Some(open))), signal }
    }
}

impl Cancel {
    /// Ends the running job before its next submit, and the study with it. A study that starts
    /// later ends at once.
    pub fn cancel(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// A receiver that is ready (disconnected) as soon as the token is cancelled.
    pub(super) fn signal(&self) -> &Receiver<()> {
        &self.signal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn all_clones_hear_of_it_for_good() {
        let cancel = Cancel::default();
        let clone = cancel.clone();
        let waiting = std::thread::spawn(move || clone.signal().recv_timeout(Duration::from_secs(60)).is_err());
        assert!(!cancel.is_cancelled());
        cancel.cancel();
        cancel.cancel();
        assert!(waiting.join().unwrap() && cancel.clone().is_cancelled());
    }
}
