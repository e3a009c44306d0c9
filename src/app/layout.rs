//! The places of the panes: docking, and a layout that lasts from one start of the window to the
//! next.

use std::collections::HashSet;

use egui::{Frame, Margin, Ui, WidgetText};
use egui_tiles::{
    Behavior, Container, Linear, LinearDir, SimplificationOptions, Tabs, Tile, TileId, Tiles, Tree, UiResponse,
};

use crate::app::actions::Actions;
use crate::app::data::shared::Shared;
use crate::app::draw::theme::Palette;
use crate::app::panes::{Panes, Place};
use crate::app::save;
use crate::app::save::picture::Pictures;

/// The key under which the layout is stored.
pub const KEY: &str = "layout v2";

/// The docked panes, by their keys.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    tree: Tree<String>,
    /// The key of the maximised pane. It is not stored.
    #[serde(skip)]
    maximized: Option<String>,
}

/// Keys of the panes whose home is one of some places.
fn keys(panes: &Panes, places: &[Place]) -> Vec<String> {
    let at = |place: Place| panes.iter().filter(move |pane| pane.place() == place);
    places.iter().flat_map(|place| at(*place)).map(|pane| pane.key().to_owned()).collect()
}

/// A group of tabs.
fn tabs(tiles: &mut Tiles<String>, keys: Vec<String>) -> TileId {
    let children = keys.into_iter().map(|key| tiles.insert_pane(key)).collect();
    tiles.insert_tab_tile(children)
}

/// Tiles beside or below each other, each with its share of the room.
fn line(tiles: &mut Tiles<String>, direction: LinearDir, children: &[(TileId, f32)]) -> TileId {
    let mut linear = Linear::new(direction, children.iter().map(|(tile, _)| *tile).collect());
    for (tile, share) in children {
        linear.shares.set_share(*tile, *share);
    }
    tiles.insert_container(Container::Linear(linear))
}

impl Layout {
    /// The default layout of a large window: the settings in a column of their own, the preview
    /// above everything else. The shares keep the picture at least 420 points high in a window of
    /// 1440 x 900, and leave 10 points for each of 20 blocks in the map.
    pub fn wide(panes: &Panes) -> Self {
        let mut tiles = Tiles::default();
        let mut at = |place: Place| tabs(&mut tiles, keys(panes, &[place]));
        let [left, middle, right] = [Place::Left, Place::Middle, Place::Right].map(&mut at);
        let [below_middle, below_right] = [Place::BelowMiddle, Place::BelowRight].map(&mut at);
        let above = line(&mut tiles, LinearDir::Horizontal, &[(middle, 0.7), (right, 0.3)]);
        let below = line(&mut tiles, LinearDir::Horizontal, &[(below_middle, 0.52), (below_right, 0.48)]);
        let work = line(&mut tiles, LinearDir::Vertical, &[(above, 0.57), (below, 0.43)]);
        let root = line(&mut tiles, LinearDir::Horizontal, &[(left, 0.21), (work, 0.79)]);
        Self { tree: Tree::new(egui::Id::unique("panes"), root, tiles), maximized: None }
    }

    /// The default layout of a small window: two groups of tabs beside each other, so that each
    /// pane has room.
    pub fn compact(panes: &Panes) -> Self {
        let mut tiles = Tiles::default();
        let left = tabs(&mut tiles, keys(panes, &[Place::Middle, Place::BelowRight]));
        let right = tabs(&mut tiles, keys(panes, &[Place::BelowMiddle, Place::Left, Place::Right]));
        let root = tiles.insert_container(Container::Linear(Linear::new(LinearDir::Horizontal, vec![left, right])));
        Self { tree: Tree::new(egui::Id::unique("compact panes"), root, tiles), maximized: None }
    }

    /// A layout as it was stored, with the panes that are new since. `None` if the text is damaged.
    pub fn stored(text: &str, panes: &Panes) -> Option<Self> {
        let mut layout: Self = serde_json::from_str(text).ok()?;
        layout.add_new(panes);
        layout.is_valid(panes).then_some(layout)
    }

    /// Adds the panes that the layout lacks, as tabs beside panes of the same place.
    fn add_new(&mut self, panes: &Panes) {
        for pane in panes.iter() {
            if self.tile(pane.key()).is_some() {
                continue;
            }
            let home = |key: String| self.tree.tiles.parent_of(self.tile(&key)?);
            let parent = keys(panes, &[pane.place()]).into_iter().find_map(home).or(self.tree.root());
            let tile = self.tree.tiles.insert_pane(pane.key().to_owned());
            if let Some(Tile::Container(container)) = parent.and_then(|parent| self.tree.tiles.get_mut(parent)) {
                container.add_child(tile);
            }
        }
    }

    /// Whether every pane is there once, and the tree hangs together.
    pub fn is_valid(&self, panes: &Panes) -> bool {
        let mut seen = HashSet::new();
        let mut reached = HashSet::new();
        let mut waiting: Vec<TileId> = self.tree.root().into_iter().collect();
        while let Some(id) = waiting.pop() {
            if !reached.insert(id) {
                return false;
            }
            match self.tree.tiles.get(id) {
                Some(Tile::Pane(key)) => {
                    if panes.by_key(key).is_none() || !seen.insert(key) {
                        return false;
                    }
                }
                Some(Tile::Container(container)) => waiting.extend(container.children().copied()),
                None => return false,
            }
        }
        seen.len() == panes.iter().count() && reached.len() == self.tree.tiles.len()
    }

    fn tile(&self, key: &str) -> Option<TileId> {
        self.tree.tiles.find_pane(&key.to_owned())
    }

    /// Whether the pane with a key is open. It may still be behind another tab.
    pub fn is_open(&self, key: &str) -> bool {
        self.tile(key).is_some_and(|tile| self.tree.is_visible(tile))
    }

    /// Opens or closes the pane with a key.
    pub fn set_open(&mut self, key: &str, open: bool) {
        if let Some(tile) = self.tile(key) {
            self.tree.set_visible(tile, open);
        }
    }

    /// Draws all panes, or the one that is maximized.
    pub fn ui(
        &mut self,
        ui: &mut Ui,
        panes: &mut Panes,
        shared: &Shared,
        actions: &mut Actions,
        pictures: &mut Pictures,
    ) {
        let mut docking = Docking { panes, shared, actions, pictures, toggled: None };
        match self.maximized.clone().filter(|key| docking.panes.by_key(key).is_some()) {
            Some(key) => docking.alone(ui, &key),
            None => self.tree.ui(&mut docking, ui),
        }
        if let Some(key) = docking.toggled {
            self.maximized = if self.maximized.is_none() { Some(key) } else { None };
        }
    }
}

/// The drawing of docked panes.
struct Docking<'a> {
    panes: &'a mut Panes,
    shared: &'a Shared,
    actions: &'a mut Actions,
    pictures: &'a mut Pictures,
    /// The pane that the user maximized, or put back.
    toggled: Option<String>,
}

/// Text of the tip of a tab.
const TAB_TIP: &str = "Double click: the pane fills the window, and comes back";

impl Docking<'_> {
    /// Draws a pane in the room that there is.
    fn pane(&mut self, ui: &mut Ui, key: &str) {
        let fill = Palette::of(ui).pane;
        self.pictures.place(key, ui.max_rect());
        Frame::new().fill(fill).inner_margin(Margin::same(8)).show(ui, |ui| {
            ui.set_min_size(ui.available_size());
            if let Some(pane) = self.panes.by_key_mut(key) {
                ui.push_id(pane.title(), |ui| pane.ui(ui, self.shared, self.actions));
            }
        });
    }

    /// Draws a pane that has the whole room, below a bar with its name.
    fn alone(&mut self, ui: &mut Ui, key: &str) {
        let Some(pane) = self.panes.by_key(key) else { return };
        let mut back = false;
        ui.horizontal(|ui| {
            let title = egui::Label::new(egui::RichText::new(pane.title()).strong()).sense(egui::Sense::click());
            back |= ui.add(title).on_hover_text(TAB_TIP).double_clicked();
            back |=
                ui.button("Back to all panes").on_hover_text("Also Escape, or a double click on the name").clicked();
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                save::pane_menu(ui, pane, self.shared, self.actions);
            });
        });
        // Escape first leaves a field or a menu.
        let free = ui.memory(|memory| memory.focused().is_none()) && !egui::Popup::is_any_open(ui.ctx());
        back |= free && ui.input(|input| input.key_pressed(egui::Key::Escape));
        self.pane(ui, key);
        if back {
            self.toggled = Some(key.to_owned());
        }
    }
}

impl Behavior<String> for Docking<'_> {
    fn pane_ui(&mut self, ui: &mut Ui, _: TileId, key: &mut String) -> UiResponse {
        self.pane(ui, key);
        UiResponse::None
    }

    fn on_tab_button(&mut self, tiles: &mut Tiles<String>, tile: TileId, button: egui::Response) -> egui::Response {
        let Some(key) = tiles.get_pane(&tile).cloned() else { return button };
        let mut toggled = button.double_clicked();
        button.context_menu(|ui| {
            toggled |= ui.button("Fill the window").clicked();
            if ui.button("Close").clicked() {
                tiles.set_visible(tile, false);
            }
        });
        if toggled {
            self.toggled = Some(key);
        }
        button.on_hover_text(TAB_TIP)
    }

    fn tab_title_for_pane(&mut self, key: &String) -> WidgetText {
        self.panes.by_key(key).map_or("", |pane| pane.title()).into()
    }

    fn top_bar_right_ui(&mut self, tiles: &Tiles<String>, ui: &mut Ui, _: TileId, tabs: &Tabs, _: &mut f32) {
        let active = tabs.active.and_then(|tile| tiles.get_pane(&tile));
        if let Some(pane) = active.and_then(|key| self.panes.by_key(key)) {
            save::pane_menu(ui, pane, self.shared, self.actions);
        }
    }

    fn is_tab_closable(&self, tiles: &Tiles<String>, tile: TileId) -> bool {
        matches!(tiles.get(tile), Some(Tile::Pane(_)))
    }

    /// Closed panes stay in the tree, hidden, so that they come back where they were.
    fn on_tab_close(&mut self, tiles: &mut Tiles<String>, tile: TileId) -> bool {
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
        // The color that the window is cleared with.
        egui::Color32::TRANSPARENT
    }

    fn min_size(&self) -> f32 {
        60.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::panes::catalogue;

    #[test]
    fn the_layout_survives_its_file_and_wrong_ones_are_found() {
        let panes = catalogue();
        let layout = Layout::wide(&panes);
        assert!(layout.is_valid(&panes) && Layout::compact(&panes).is_valid(&panes));
        let text = serde_json::to_string(&layout).unwrap();
        assert_eq!(Layout::stored(&text, &panes).unwrap(), layout);
        assert!(Layout::stored(&text.replace("\"numbers\"", "\"steps\""), &panes).is_none());
        assert!(Layout::stored(&text.replace("\"numbers\"", "\"unknown\""), &panes).is_none());
    }

    #[test]
    fn panes_close_and_come_back() {
        let panes = catalogue();
        let mut layout = Layout::wide(&panes);
        layout.set_open("numbers", false);
        assert!(!layout.is_open("numbers") && layout.is_valid(&panes));
        layout.set_open("numbers", true);
        assert!(layout.is_open("numbers"));
        layout.maximized = Some("numbers".into());
        let text = serde_json::to_string(&layout).unwrap();
        assert_eq!(Layout::stored(&text, &panes).unwrap().maximized, None, "not stored");
    }
}
