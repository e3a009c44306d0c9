//! A path that is typed, where the system shows no file dialog.

use std::path::PathBuf;

use egui::{Context, Id, Modal, RichText, TextEdit};

use super::{Dialog, Purpose};
use crate::app::App;
use crate::app::draw::theme::Palette;
use crate::app::link::Messenger;

/// What is done with the answer.
type Then = Box<dyn FnOnce(&Messenger, PathBuf) + Send>;

/// A question for a path, and what to do with the answer.
pub struct PathQuestion {
    dialog: Dialog,
    text: String,
    then: Then,
}

impl PathQuestion {
    /// The question of a dialog. It suggests a place in the user's home folder.
    pub fn new(dialog: Dialog, then: impl FnOnce(&Messenger, PathBuf) + Send + 'static) -> Self {
        let folder = std::env::home_dir().or_else(|| std::env::current_dir().ok()).unwrap_or_default();
        let place = match &dialog.purpose {
            Purpose::Save(name) => folder.join(name),
            Purpose::Open | Purpose::Folder => folder.join(""),
        };
        Self { text: place.to_string_lossy().into_owned(), dialog, then: Box::new(then) }
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(self.text.trim())
    }

    /// What the answer would do. The error says why it cannot be used.
    fn outcome(&self) -> Result<&'static str, &'static str> {
        let path = self.path();
        match &self.dialog.purpose {
            _ if path.as_os_str().is_empty() => Err("Write a path."),
            Purpose::Open if path.is_file() => Ok(""),
            Purpose::Open => Err("There is no such file."),
            Purpose::Folder if path.is_dir() => Ok(""),
            Purpose::Folder => Err("There is no such folder."),
            Purpose::Save(_) if path.is_dir() => Err("This is a folder: add the name of a file."),
            Purpose::Save(_)
                if !path.parent().is_some_and(|folder| folder.as_os_str().is_empty() || folder.is_dir()) =>
            {
                Err("Its folder does not exist.")
            }
            Purpose::Save(_) if path.exists() => Ok("This file exists and will be replaced."),
            Purpose::Save(_) => Ok(""),
        }
    }
}

impl App {
    /// Draws the question for a typed path, and acts on the answer.
    pub(in crate::app) fn ask_path(&mut self, ctx: &Context) {
        let Some(question) = &mut self.path_question else { return };
        let outcome = question.outcome();
        let modal = Modal::new(Id::unique("typed path")).show(ctx, |ui| {
            ui.set_width(520.0);
            ui.heading(&question.dialog.title);
            let weak = Palette::of(ui).weak;
            let why = "This system shows no file dialog (zenity, or xdg-desktop-portal with a backend, would).";
            ui.label(RichText::new(why).color(weak));
            let label = ui.label("Path");
            let field = TextEdit::singleline(&mut question.text).desired_width(f32::INFINITY);
            let field = ui.add(field).labelled_by(label.id);
            let entered = field.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            ui.label(RichText::new(outcome.unwrap_or_else(|why| why)).color(weak));
            ui.horizontal(|ui| {
                let text = if matches!(question.dialog.purpose, Purpose::Save(_)) { "Save here" } else { "Open this" };
                let ok = ui.add_enabled(outcome.is_ok(), egui::Button::new(text)).clicked();
                (ok || entered && outcome.is_ok(), ui.button("Not now").clicked())
            })
            .inner
        });
        let (go, stop) = modal.inner;
        if go {
            if let Some(question) = self.path_question.take() {
                let (path, writes) = (question.path(), matches!(question.dialog.purpose, Purpose::Save(_)));
                self.link.messenger.spawn(move |messenger| {
                    let _writing = writes.then(|| messenger.writing());
                    (question.then)(messenger, path);
                });
            }
        } else if stop || modal.should_close() {
            self.path_question = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_cannot_work_are_told_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("there.capture");
        std::fs::write(&file, "").unwrap();
        let outcome = |dialog: Dialog, path: &std::path::Path| {
            let mut question = PathQuestion::new(dialog, |_, _| {});
            question.text = path.display().to_string();
            question.outcome()
        };
        let save = || Dialog::save("Save", "run.capture", &[]);
        assert!(PathQuestion::new(save(), |_, _| {}).text.ends_with("run.capture"));
        assert_eq!(outcome(save(), &folder.path().join("new.capture")), Ok(""));
        assert!(outcome(save(), &file).is_ok_and(|text| text.contains("replaced")));
        assert!(outcome(save(), folder.path()).is_err() && outcome(save(), &folder.path().join("no/x")).is_err());
        assert!(outcome(save(), std::path::Path::new("  ")).is_err());
        assert_eq!(outcome(Dialog::open("Open", &[]), &file), Ok(""));
        assert!(outcome(Dialog::open("Open", &[]), folder.path()).is_err());
        assert!(
            outcome(Dialog::folder("Choose"), folder.path()).is_ok()
                && outcome(Dialog::folder("Choose"), &file).is_err()
        );
    }
}
