//! Messages from other threads to the window.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::Sender;

use super::Message;
use crate::app::dialogs::{Choose, Chosen, Dialog};

/// Sends messages to the window from other threads.
#[derive(Clone)]
pub struct Messenger {
    to: Sender<Message>,
    /// A channel without a limit for the window's own thread, which must not wait for itself.
    own: Sender<Message>,
    ctx: egui::Context,
    choose: Choose,
    /// Number of files that are being written.
    saving: Arc<AtomicUsize>,
}

/// A file that is being written. It wakes the window when it begins and when it is done.
pub struct Writing(Messenger);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.saving.fetch_sub(1, Ordering::Relaxed);
        self.0.ctx.request_repaint();
    }
}

/// An answer that the window waits for. If the work panics or no thread can be started, `otherwise`
/// is sent instead.
pub struct PendingAnswer<F: FnOnce() -> Message> {
    messenger: Messenger,
    otherwise: Option<F>,
}

impl<F: FnOnce() -> Message> PendingAnswer<F> {
    /// Sends the answer.
    pub fn give(mut self, answer: Message) {
        self.otherwise = None;
        self.messenger.send(answer);
    }
}

impl<F: FnOnce() -> Message> Drop for PendingAnswer<F> {
    fn drop(&mut self) {
        let Some(otherwise) = self.otherwise.take() else { return };
        if std::thread::panicking() {
            self.messenger.send(otherwise());
        } else {
            self.messenger.send_own(otherwise());
        }
    }
}

/// The text for work that panicked.
pub const BROKEN: &str = "this part of the program broke, which is a bug of it; the terminal says more";

impl Messenger {
    /// A messenger that sends on two channels: `to` for other threads, `own` for the window's
    /// thread.
    pub fn new(to: Sender<Message>, own: Sender<Message>, ctx: egui::Context, choose: Choose) -> Self {
        Self { to, own, ctx, choose, saving: Arc::default() }
    }

    /// The number of files that are being written.
    pub fn saving(&self) -> usize {
        self.saving.load(Ordering::Relaxed)
    }

    /// Sends a message and wakes the window. Returns whether the window still exists.
    pub fn send(&self, message: Message) -> bool {
        let heard = self.to.send(message).is_ok();
        self.ctx.request_repaint();
        heard
    }

    /// Sends a message from the window's own thread.
    fn send_own(&self, message: Message) {
        self.own.send(message).ok();
        self.ctx.request_repaint();
    }

    /// Shows a file dialog.
    pub fn choose(&self, dialog: Dialog) -> Chosen {
        (self.choose)(dialog)
    }

    /// Counts a file that is being written, for as long as the result is kept.
    pub fn writing(&self) -> Writing {
        self.saving.fetch_add(1, Ordering::Relaxed);
        self.ctx.request_repaint();
        Writing(self.clone())
    }

    /// Does work on a thread of its own.
    pub fn spawn(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let messenger = self.clone();
        let spawned = std::thread::Builder::new().name("window helper".into()).spawn(move || work(&messenger));
        if let Err(error) = spawned {
            self.send_own(Message::Failed(format!("the system refuses another thread: {error}")));
        }
    }

    /// Computes an answer that the window waits for, on a thread of its own. `otherwise` is sent if
    /// the work panics.
    pub fn answer(
        &self,
        otherwise: impl FnOnce() -> Message + Send + 'static,
        work: impl FnOnce() -> Message + Send + 'static,
    ) {
        let pending = self.pending(otherwise);
        self.spawn(move |_| pending.give(work()));
    }

    /// An answer that is still to be given.
    pub fn pending<F: FnOnce() -> Message>(&self, otherwise: F) -> PendingAnswer<F> {
        PendingAnswer { messenger: self.clone(), otherwise: Some(otherwise) }
    }
}
