//! Where panes are: docking, and a layout that lasts.

use std::collections::HashSet;

use egui::{Frame, Margin, Ui, WidgetText};
use egui_tiles::{
    Behavior, Container, Linear, LinearDir, SimplificationOptions, Tabs, Tile, TileId, Tiles, Tree, UiResponse,
};

use crate::app::data::state::State;
use crate::app::draw::figures;
use crate::app::draw::theme::Palette;
use crate::app::panes::{log, map, numbers, preview, runs, steps, strategy};

/// What can be docked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pane {
    /// Strategies and their settings.
    Strategy,
    /// Frames.
    Preview,
    /// Blocks by steps.
    Map,
    /// Figures.
    Numbers,
    /// Curves over steps.
    Steps,
    /// The runs of the session.
    Runs,
    /// Messages.
    Log,
}

impl Pane {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Strategy, Self::Preview, Self::Map, Self::Numbers, Self::Steps, Self::Runs, Self::Log];

    /// The tab's text.
    pub fn title(self) -> &'static str {
        match self {
            Self::Strategy => "Strategy",
            Self::Preview => "Preview",
            Self::Map => "Blocks x steps",
            Self::Numbers => "Numbers",
            Self::Steps => "Steps",
            Self::Runs => "Runs",
            Self::Log => "Log",
        }
    }

    /// Draws it.
    pub fn ui(self, ui: &mut Ui, state: &mut State) {
        match self {
            Self::Strategy => strategy::ui(ui, state),
            Self::Preview => preview::ui(ui, state),
            Self::Map => map::ui(ui, state),
            Self::Numbers => numbers::ui(ui, state),
            Self::Steps => steps::ui(ui, state),
            Self::Runs => runs::ui(ui, state),
            Self::Log => log::ui(ui, state),
        }
    }
}

/// The key that the layout is kept under. A change of panes changes it: an old layout is then forgotten.
pub const KEY: &str = "layout v1";

/// The docked panes.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    tree: Tree<Pane>,
}

impl Default for Layout {
    fn default() -> Self {
        let mut tiles = Tiles::default();
        let mut tab = |panes: &[Pane]| {
            let children: Vec<TileId> = panes.iter().map(|pane| tiles.insert_pane(*pane)).collect();
            tiles.insert_tab_tile(children)
        };
        let [strategy, preview, map] = [Pane::Strategy, Pane::Preview, Pane::Map].map(|pane| tab(&[pane]));
        let [numbers, steps] = [Pane::Numbers, Pane::Steps].map(|pane| tab(&[pane]));
        let below = tab(&[Pane::Runs, Pane::Log]);
        let middle = vertical(&mut tiles, &[(preview, 0.5), (map, 0.5)]);
        let right = vertical(&mut tiles, &[(numbers, 0.58), (steps, 0.42)]);
        let mut upper = Linear::new(LinearDir::Horizontal, vec![strategy, middle, right]);
        for (tile, share) in [(strategy, 0.22), (middle, 0.53), (right, 0.25)] {
            upper.shares.set_share(tile, share);
        }
        let upper = tiles.insert_container(Container::Linear(upper));
        let root = vertical(&mut tiles, &[(upper, 0.83), (below, 0.17)]);
        Self { tree: Tree::new(egui::Id::unique("panes"), root, tiles) }
    }
}

fn vertical(tiles: &mut Tiles<Pane>, children: &[(TileId, f32)]) -> TileId {
    let mut linear = Linear::new(LinearDir::Vertical, children.iter().map(|(tile, _)| *tile).collect());
    for (tile, share) in children {
        linear.shares.set_share(*tile, *share);
    }
    tiles.insert_container(Container::Linear(linear))
}

impl Layout {
    /// For a small window: two groups of tabs beside each other, so that each pane has room.
    pub fn compact() -> Self {
        let mut tiles = Tiles::default();
        let mut tab = |panes: &[Pane]| {
            let children: Vec<TileId> = panes.iter().map(|pane| tiles.insert_pane(*pane)).collect();
            tiles.insert_tab_tile(children)
        };
        let left = tab(&[Pane::Preview, Pane::Runs, Pane::Log]);
        let right = tab(&[Pane::Map, Pane::Strategy, Pane::Numbers, Pane::Steps]);
        let root = tiles.insert_container(Container::Linear(Linear::new(LinearDir::Horizontal, vec![left, right])));
        Self { tree: Tree::new(egui::Id::unique("compact panes"), root, tiles) }
    }

    /// Whether it can be used: every pane is there once, and the tree hangs together.
    pub fn is_valid(&self) -> bool {
        let mut seen = HashSet::new();
        let mut reached = HashSet::new();
        let mut waiting: Vec<TileId> = self.tree.root().into_iter().collect();
        while let Some(id) = waiting.pop() {
            if !reached.insert(id) {
                return false;
            }
            match self.tree.tiles.get(id) {
                Some(Tile::Pane(pane)) => {
                    if !seen.insert(*pane) {
                        return false;
                    }
                }
                Some(Tile::Container(container)) => waiting.extend(container.children().copied()),
                None => return false,
            }
        }
        seen.len() == Pane::ALL.len() && reached.len() == self.tree.tiles.len()
    }

    fn tile(&self, pane: Pane) -> Option<TileId> {
        self.tree.tiles.find_pane(&pane)
    }

    /// Whether a pane can be seen.
    pub fn is_open(&self, pane: Pane) -> bool {
        self.tile(pane).is_some_and(|tile| self.tree.is_visible(tile))
    }

    /// Opens or closes a pane.
    pub fn set_open(&mut self, pane: Pane, open: bool) {
        if let Some(tile) = self.tile(pane) {
            self.tree.set_visible(tile, open);
        }
    }

    /// Draws all panes.
    pub fn ui(&mut self, ui: &mut Ui, state: &mut State) {
        self.tree.ui(&mut Panes { state }, ui);
    }
}

struct Panes<'a> {
    state: &'a mut State,
}

impl Behavior<Pane> for Panes<'_> {
    fn pane_ui(&mut self, ui: &mut Ui, _: TileId, pane: &mut Pane) -> UiResponse {
        let fill = Palette::of(ui).pane;
        self.state.shots.place(*pane, ui.max_rect());
        Frame::new().fill(fill).inner_margin(Margin::same(8)).show(ui, |ui| {
            ui.set_min_size(ui.available_size());
            ui.push_id(pane.title(), |ui| pane.ui(ui, self.state));
        });
        UiResponse::None
    }

    fn tab_title_for_pane(&mut self, pane: &Pane) -> WidgetText {
        pane.title().into()
    }

    fn top_bar_right_ui(&mut self, tiles: &Tiles<Pane>, ui: &mut Ui, _: TileId, tabs: &Tabs, _: &mut f32) {
        let active = tabs.active.and_then(|tile| tiles.get_pane(&tile)).copied();
        if let Some(pane) = active {
            figures::menu(ui, self.state, pane);
        }
    }

    fn is_tab_closable(&self, tiles: &Tiles<Pane>, tile: TileId) -> bool {
        matches!(tiles.get(tile), Some(Tile::Pane(_)))
    }

    /// Closed panes stay in the tree, hidden, so that they come back where they were.
    fn on_tab_close(&mut self, tiles: &mut Tiles<Pane>, tile: TileId) -> bool {
        tiles.set_visible(tile, false);
        false
    }

    fn simplification_options(&self) -> SimplificationOptions {
        SimplificationOptions { all_panes_must_have_tabs: true, ..SimplificationOptions::default() }
    }

    fn gap_width(&self, _: &egui::Style) -> f32 {
        4.0
    }

    fn tab_bar_height(&self, _: &egui::Style) -> f32 {
        24.0
    }

    fn tab_bar_color(&self, _: &egui::Visuals) -> egui::Color32 {
        // What the window is cleared with.
        egui::Color32::TRANSPARENT
    }

    fn min_size(&self) -> f32 {
        60.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_survives_its_file_and_wrong_ones_are_found() {
        let layout = Layout::default();
        assert!(layout.is_valid() && Layout::compact().is_valid());
        let text = serde_json::to_string(&layout).unwrap();
        assert_eq!(serde_json::from_str::<Layout>(&text).unwrap(), layout);
        let twice: Layout = serde_json::from_str(&text.replace("\"numbers\"", "\"steps\"")).unwrap();
        assert!(!twice.is_valid());
    }

    #[test]
    fn panes_close_and_come_back() {
        let mut layout = Layout::default();
        layout.set_open(Pane::Numbers, false);
        assert!(!layout.is_open(Pane::Numbers) && layout.is_valid());
        layout.set_open(Pane::Numbers, true);
        assert!(layout.is_open(Pane::Numbers));
    }
}
