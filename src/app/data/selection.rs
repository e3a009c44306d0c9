//! The selection that all panes share.

/// A cell of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapCell {
    /// Its step.
    pub step: usize,
    /// Its block.
    pub block: usize,
}

/// A rectangle of cells of the map. Both corners belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellArea {
    /// The corner with the lowest step and block.
    pub first: MapCell,
    /// The corner with the highest step and block.
    pub last: MapCell,
}

impl CellArea {
    /// The smallest area that holds two cells.
    pub fn between(a: MapCell, b: MapCell) -> Self {
        Self {
            first: MapCell { step: a.step.min(b.step), block: a.block.min(b.block) },
            last: MapCell { step: a.step.max(b.step), block: a.block.max(b.block) },
        }
    }

    /// An area of one cell.
    pub fn of(cell: MapCell) -> Self {
        Self { first: cell, last: cell }
    }

    /// Its only cell, if it has no more.
    pub fn single(&self) -> Option<MapCell> {
        (self.first == self.last).then_some(self.first)
    }
}

/// The step, block and branch that the panes show. The branch lasts from one start to the next.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Selection {
    /// The step on show; `None` for the clip, or for the newest step of a run without one.
    #[serde(skip)]
    pub step: Option<usize>,
    /// The block whose attention is shown.
    #[serde(skip)]
    pub block: Option<usize>,
    /// The cells that are selected in the map.
    #[serde(skip)]
    pub cells: Option<CellArea>,
    /// The cell that others are compared with.
    #[serde(skip)]
    pub pinned: Option<MapCell>,
    /// Whether the branch of the negative prompt is shown.
    pub uncond: bool,
}

impl Selection {
    /// Selects one cell, its step and its block.
    pub fn select(&mut self, cell: MapCell) {
        (self.step, self.block, self.cells) = (Some(cell.step), Some(cell.block), Some(CellArea::of(cell)));
    }

    /// Selects nothing. The branch stays.
    pub fn clear(&mut self) {
        *self = Self { uncond: self.uncond, ..Self::default() };
    }
}
