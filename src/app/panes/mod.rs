//! The panes. A pane is a file or a folder here and a line in [`catalogue`]. Layouts, tabs, the
//! View menu and the menus of the panes iterate over the catalogue.

pub mod comparison;
pub mod log;
pub mod map;
pub mod numbers;
pub mod preview;
pub mod profile;
pub mod runs;
pub mod steps;
pub mod strategy;

use std::any::Any;

use egui::Ui;

use crate::app::actions::Actions;
use crate::app::data::shared::Shared;
use crate::app::save::Saveable;

/// All panes, in the order of the View menu.
pub fn catalogue() -> Panes {
    Panes(vec![
        Box::<strategy::StrategyPane>::default(),
        Box::<preview::PreviewPane>::default(),
        Box::<map::MapPane>::default(),
        Box::<numbers::NumbersPane>::default(),
        Box::<runs::RunsPane>::default(),
        Box::<steps::StepsPane>::default(),
        Box::<profile::ProfilePane>::default(),
        Box::<comparison::ComparisonPane>::default(),
        Box::<log::LogPane>::default(),
    ])
}

/// A part of the window that can be docked. It owns its state, reads what is shared, and changes
/// that by actions alone.
pub trait Pane: Any {
    /// The name of the pane in stored layouts and settings. It never changes.
    fn key(&self) -> &'static str;

    /// The text of the tab.
    fn title(&self) -> &'static str;

    /// The place of the pane in the default layouts.
    fn place(&self) -> Place;

    /// Draws the pane.
    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions);

    /// The entries of the pane's menu. Every menu also has the picture of the pane.
    fn saves(&self) -> Vec<&'static Saveable> {
        Vec::new()
    }

    /// Takes note of an event, also while the pane is hidden.
    fn notice(&mut self, _news: News) {}

    /// The settings that last from one start of the window to the next, as JSON.
    fn settings(&self) -> Option<String> {
        None
    }

    /// Takes over settings that [`Self::settings`] made. The settings of an older program may be
    /// damaged or incomplete.
    fn restore(&mut self, _settings: &str) {}
}

/// A place in the default layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The left column, of full height.
    Left,
    /// Above, in the middle: the largest place.
    Middle,
    /// Below it.
    BelowMiddle,
    /// Above, at the right.
    Right,
    /// Below, at the right.
    BelowRight,
}

/// An event that panes may react to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Another run was opened or has started, and is on show.
    RunOpened {
        /// Whether its clip is to be played.
        play: bool,
    },
    /// A mask from a file is in use.
    MaskOpened,
}

/// The panes of a window.
pub struct Panes(Vec<Box<dyn Pane>>);

impl Panes {
    /// Adds a pane at the end of the list.
    #[cfg(test)]
    pub fn add(&mut self, pane: Box<dyn Pane>) {
        self.0.push(pane);
    }

    /// All of them, in the order of the View menu.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Pane> {
        self.0.iter().map(|pane| &**pane)
    }

    /// All of them, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn Pane>> {
        self.0.iter_mut()
    }

    /// The pane with a key.
    pub fn by_key(&self, key: &str) -> Option<&dyn Pane> {
        self.iter().find(|pane| pane.key() == key)
    }

    /// The pane with a key, to change.
    pub fn by_key_mut(&mut self, key: &str) -> Option<&mut Box<dyn Pane>> {
        self.0.iter_mut().find(|pane| pane.key() == key)
    }

    /// The pane of a type.
    pub fn get<P: Pane>(&self) -> Option<&P> {
        self.iter().find_map(|pane| (pane as &dyn Any).downcast_ref())
    }

    /// The pane of a type, to change.
    #[cfg(test)]
    pub fn get_mut<P: Pane>(&mut self) -> Option<&mut P> {
        self.0.iter_mut().find_map(|pane| (&mut **pane as &mut dyn Any).downcast_mut())
    }

    /// Tells all panes of an event.
    pub fn notice(&mut self, news: News) {
        self.0.iter_mut().for_each(|pane| pane.notice(news));
    }
}
