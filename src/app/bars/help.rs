//! The Help menu: keys, the glossary, and what is running here.

use egui::{Button, Context, Id, KeyboardShortcut, RichText, ScrollArea, Ui};

use super::top_bar::{CANCEL, GENERATE, OPEN, PAUSE, SAVE};
use crate::app::data::shared::Shared;
use crate::app::draw::theme::Palette;
use crate::app::panes::preview::brush;

/// The words of the program and its pages.
const GLOSSARY: &str = include_str!("../../../docs/glossary.md");

/// A page of help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Keys,
    Glossary,
    About,
}

impl Page {
    const ALL: [(Self, &'static str); 3] = [(Self::Keys, "Keys"), (Self::Glossary, "Glossary"), (Self::About, "About")];
}

/// The place of the open page in the context's memory.
fn id() -> Id {
    Id::unique("help page")
}

/// The Help menu.
pub fn menu(ui: &mut Ui) {
    ui.menu_button("Help", |ui| {
        for (page, text) in Page::ALL {
            if ui.add(Button::new(text)).clicked() {
                ui.data_mut(|data| data.insert_temp(id(), Some(page)));
            }
        }
    });
}

/// Draws the page that is open.
pub fn page(ctx: &Context, shared: &Shared) {
    let Some(page) = ctx.data(|data| data.get_temp::<Option<Page>>(id())).flatten() else { return };
    let title = Page::ALL.iter().find(|(each, _)| *each == page).map_or("", |(_, text)| text);
    let mut open = true;
    let window = egui::Window::new(title).id(Id::unique("help")).open(&mut open).collapsible(false);
    window.default_size([520.0, 420.0]).default_pos([80.0, 80.0]).show(ctx, |ui| match page {
        Page::Keys => keys(ui),
        Page::Glossary => glossary(ui),
        Page::About => about(ui, shared),
    });
    if !open {
        ctx.data_mut(|data| data.insert_temp(id(), None::<Page>));
    }
}

fn keys(ui: &mut Ui) {
    let weak = Palette::of(ui).weak;
    egui::Grid::new("keys").num_columns(2).show(ui, |ui| {
        let format = |keys: &KeyboardShortcut| ui.ctx().format_shortcut(keys);
        for (keys, what) in [
            (format(&GENERATE), "generate"),
            (format(&PAUSE), "pause, resume"),
            (format(&CANCEL), "cancel"),
            (format(&OPEN), "open a capture"),
            (format(&SAVE), "save the capture"),
            ("K".into(), "play, stop"),
            ("arrows".into(), "move in the map, or the brush; with Shift the selection grows"),
            ("space".into(), "switch reuse of the selected cells in the next plan; paint the mask"),
            (format(&brush::UNDO), "take back the last stroke of the mask"),
            ("Tab".into(), "to the next control, from left to right and downwards"),
            ("Escape".into(), "back to all panes"),
        ] {
            ui.label(RichText::new(keys).monospace());
            ui.label(RichText::new(what).color(weak));
            ui.end_row();
        }
    });
}

/// A term and its explanation.
#[derive(Debug, PartialEq)]
struct Term<'a> {
    term: &'a str,
    text: String,
}

/// The terms of the glossary, without links.
fn terms(markdown: &str) -> Vec<Term<'_>> {
    let sections = markdown.split("\n### ").skip(1);
    sections
        .filter_map(|section| {
            let (term, rest) = section.split_once('\n')?;
            let body = rest.split("\n## ").next().unwrap_or_default();
            let paragraphs = body.split("\n\n").map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
            let text: Vec<String> = paragraphs.filter(|text| !text.is_empty()).map(|text| plain(&text)).collect();
            Some(Term { term: term.trim(), text: text.join("\n\n") })
        })
        .collect()
}

/// A paragraph without the marks of Markdown. A link to a source file is left out.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('[') {
        let link = rest[start + 1..].split_once("](").and_then(|(words, after)| Some((words, after.split_once(')')?)));
        let Some((words, (target, after))) = link else { break };
        out += &rest[..start];
        if !target.ends_with(".rs") {
            out += words;
        }
        rest = after;
    }
    out += rest;
    out.replace('`', "").trim().to_owned()
}

fn glossary(ui: &mut Ui) {
    let weak = Palette::of(ui).weak;
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        for Term { term, text } in terms(GLOSSARY) {
            ui.label(RichText::new(term).strong());
            ui.add(egui::Label::new(RichText::new(text).color(weak)).wrap().selectable(true));
            ui.add_space(6.0);
        }
    });
}

fn about(ui: &mut Ui, shared: &Shared) {
    let adapter =
        shared.adapter.as_ref().map_or("not opened yet: the first run opens it", |adapter| adapter.name.as_str());
    let text = format!(
        "ditscope {}\n{} {}\nGPU: {adapter}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
    );
    ui.add(egui::Label::new(&text).selectable(true));
    if ui.button("Copy as text").clicked() {
        ui.ctx().copy_text(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_glossary_is_read_as_terms() {
        let all = terms(GLOSSARY);
        assert!(all.len() > 10 && all.iter().all(|term| !term.text.is_empty()), "{all:?}");
        let block = all.iter().find(|term| term.term == "Block").unwrap();
        assert!(block.text.starts_with("One layer of the transformer") && !block.text.contains(['[', '`', '#']));
        assert_eq!(plain("a [word](page.md#x), `code` [file.rs](../file.rs) and [broken"), "a word, code  and [broken");
    }
}
