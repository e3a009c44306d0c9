//! What is added to a tensor when it is decoded: the product of two thin matrices, or a tensor of
//! the same shape. LoRAs are merged in this way, without a copy of the weights on the host.

use super::checkpoint::Stored;
use super::identity::Wide;
use super::{TensorView, WeightsError};
use rayon::prelude::*;
use std::ops::Range;

/// An addition to a tensor. Its own tensors stay mapped and are read when they are used.
#[derive(Clone, Debug)]
pub struct Addition {
    factor: f32,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// `up [rows, rank]` times `down [rank, columns]`.
    LowRank { up: Stored, down: Stored, rank: usize },
    /// A tensor of the same number of elements.
    Whole(Stored),
}

/// Rows and columns of a tensor: everything after the first axis is a column.
fn extents(shape: &[usize]) -> Option<[usize; 2]> {
    let (&rows, rest) = shape.split_first()?;
    Some([rows, rest.iter().product()])
}

impl Addition {
    /// `factor * up * down` for a tensor of the shape `target`. `None` if the shapes do not fit.
    pub(super) fn low_rank(target: &[usize], up: Stored, down: Stored, factor: f32) -> Option<Self> {
        let [rows, columns] = extents(target)?;
        let ([of_rows, rank], [of_rank, of_columns]) = (extents(&up.shape)?, extents(&down.shape)?);
        let fits = of_rows == rows && of_columns == columns && of_rank == rank && rank > 0;
        fits.then_some(Self { factor, kind: Kind::LowRank { up, down, rank } })
    }

    /// `factor * other` for a tensor of the shape `target`. `None` if the sizes do not fit.
    pub(super) fn whole(target: &[usize], other: Stored, factor: f32) -> Option<Self> {
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        (elements(target) == elements(&other.shape)).then_some(Self { factor, kind: Kind::Whole(other) })
    }

    /// Adds to rows `rows` of `width` elements.
    pub(super) fn apply(&self, values: &mut [f32], rows: Range<usize>, width: usize) -> Result<(), WeightsError> {
        let factor = self.factor;
        match &self.kind {
            Kind::LowRank { up, down, rank } => {
                let (up, down) = (up.view("up").rows_to_f32(rows)?, down.view("down").to_f32()?);
                let lines = values.par_chunks_mut(width.max(1)).zip(up.par_chunks(*rank));
                lines.for_each(|(line, up)| {
                    let mut sum = vec![0.0; line.len()];
                    for (share, down) in up.iter().zip(down.chunks_exact(width.max(1))) {
                        sum.iter_mut().zip(down).for_each(|(sum, down)| *sum += share * down);
                    }
                    line.iter_mut().zip(sum).for_each(|(value, sum)| *value += factor * sum);
                });
            }
            Kind::Whole(other) => {
                let other = other.view("diff").to_f32()?;
                let start = rows.start * width;
                let part = other.get(start..start + values.len()).unwrap_or_default();
                values.iter_mut().zip(part).for_each(|(value, other)| *value += factor * other);
            }
        }
        Ok(())
    }

    fn parts(&self) -> [Option<TensorView<'_>>; 2] {
        match &self.kind {
            Kind::LowRank { up, down, .. } => [Some(up.view("up")), Some(down.view("down"))],
            Kind::Whole(other) => [Some(other.view("diff")), None],
        }
    }

    /// Adds the addition to a hash: its factor and every byte.
    pub(super) fn hash(&self, hash: &mut Wide) {
        hash.bytes(&self.factor.to_le_bytes());
        for part in self.parts().into_iter().flatten() {
            hash.bytes(format!("{} {} {:?}", part.name, part.dtype, part.shape).as_bytes());
            hash.bytes(part.bytes);
        }
    }

    /// Names the addition by its file and place, as `Checkpoint::stamp` does. Nothing is read.
    pub(super) fn stamp(&self) -> String {
        let place = |stored: &Stored| stored.stamp();
        match &self.kind {
            Kind::LowRank { up, down, .. } => format!("{} {} {}", self.factor, place(up), place(down)),
            Kind::Whole(other) => format!("{} {}", self.factor, place(other)),
        }
    }
}
