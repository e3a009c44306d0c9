//! What is measured of a step: how blocks and the whole stack change, the attention of the blocks, and what probes see.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use crate::caching::ProbeResult;
use crate::gpu::{Stream, Tensor};
use crate::model::wan::transformer::{AttentionWatch, Pass, WanTransformer};
use crate::ops::{self, Changes};

use super::capture::BlockRecord;
use super::{EngineError, Observe};

type Result<T> = std::result::Result<T, EngineError>;

/// Rows of a residual that a sample has at most: enough for inner products, and little even for large models.
const SAMPLE_ROWS: usize = 256;

/// Mean of |a - b|.
pub(super) fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len().max(1) as f64
}

/// Mean of |a|.
pub(super) fn size(a: &[f32]) -> f64 {
    a.iter().map(|a| f64::from(a.abs())).sum::<f64>() / a.len().max(1) as f64
}

/// What is measured of a branch: its blocks' deltas from step to step, and its attention.
pub(super) struct Meter {
    observe: Observe,
    /// The last delta of every block and, behind them, of the whole stack; kept for measuring only.
    deltas: Vec<Option<Tensor>>,
    /// Magnitude of each token in the last of the stack's.
    magnitudes: Vec<f64>,
    /// What to read off the attention of every step.
    watch: Option<AttentionWatch>,
}

/// What was measured of the whole stack's residual.
#[derive(Default)]
pub(super) struct Residual {
    pub change: Option<f64>,
    pub magnitude_ratio: Option<f64>,
    /// Some of its rows.
    pub sample: Option<Vec<f32>>,
}

/// What the blocks of one step left on the GPU, to be read back in one go: the GPU need not stop between blocks.
pub(super) struct Measured {
    watch: Option<AttentionWatch>,
    /// Of each block and of the stack, those in `changed`; where changes are measured.
    changes: Option<Changes>,
    changed: Vec<usize>,
}

impl Meter {
    /// A meter for a model of `blocks` blocks.
    pub fn new(observe: Observe, blocks: usize, watch: Option<AttentionWatch>) -> Self {
        let deltas = if observe.changes { vec![None; blocks + 1] } else { Vec::new() };
        Self { observe, deltas, magnitudes: Vec::new(), watch }
    }

    /// Whether changes are measured.
    pub fn changes(&self) -> bool {
        self.observe.changes
    }

    /// Begins a step with these hidden states.
    pub fn begin(&self, cx: &mut Stream, hidden_states: &Tensor) -> Result<Measured> {
        let changes = self.changes().then(|| Changes::new(cx, self.deltas.len(), hidden_states.len())).transpose()?;
        Ok(Measured { watch: self.watch.clone(), changes, changed: Vec::new() })
    }

    /// Keeps `after - before` as the delta of a block (or of the stack) and measures how it changed; `before` is used up.
    fn keep(
        &mut self,
        cx: &mut Stream,
        slot: usize,
        (before, after): (Tensor, &Tensor),
        measured: &mut Measured,
    ) -> Result<()> {
        match (&measured.changes, &self.deltas[slot]) {
            (Some(changes), Some(old)) => {
                changes.measure_delta(cx, slot, (&before, after), old)?;
                measured.changed.push(slot);
            }
            _ => ops::subtract_from(cx, after, &before)?,
        }
        self.deltas[slot] = Some(before);
        Ok(())
    }

    /// Runs blocks; where wanted, one by one, measured.
    pub fn run_blocks(
        &mut self,
        cx: &mut Stream,
        (model, pass): (&WanTransformer, &Pass),
        range: Range<usize>,
        measured: &mut Measured,
        records: &mut [BlockRecord],
    ) -> Result<()> {
        if !self.observe.changes && !self.observe.times {
            return Ok(model.run_blocks(cx, pass, range, measured.watch.as_mut())?);
        }
        for block in range {
            if self.observe.times {
                cx.finish()?;
            }
            let start = Instant::now();
            let before = self.observe.changes.then(|| cx.copy_of(pass.hidden_states())).transpose()?;
            model.run_blocks(cx, pass, block..block + 1, measured.watch.as_mut())?;
            if self.observe.times {
                cx.finish()?;
                records[block].seconds = Some(start.elapsed().as_secs_f32());
            }
            if let Some(before) = before {
                self.keep(cx, block, (before, pass.hidden_states()), measured)?;
            }
        }
        Ok(())
    }

    /// How the whole stack's residual changed since it was last measured, the mean over tokens of the ratio of its magnitudes, and a
    /// sample of it.
    pub fn residual(
        &mut self,
        cx: &mut Stream,
        (before, after): (Tensor, &Tensor),
        measured: &mut Measured,
    ) -> Result<Residual> {
        let (residual, width) = (before.clone(), after.columns());
        let stack = self.deltas.len() - 1;
        self.keep(cx, stack, (before, after), measured)?;
        let residual = cx.read(&residual)?;
        let magnitude = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let magnitudes: Vec<f64> = residual.chunks_exact(width).map(magnitude).collect();
        let ratios = magnitudes.iter().zip(&self.magnitudes).map(|(new, old)| new / old);
        let mean = (!self.magnitudes.is_empty()).then(|| ratios.sum::<f64>() / magnitudes.len() as f64);
        // A token without a residual has no ratio, and captures hold numbers only.
        let magnitude_ratio = mean.filter(|ratio| ratio.is_finite());
        self.magnitudes = magnitudes;
        let stride = after.rows().div_ceil(SAMPLE_ROWS);
        let sample = residual.chunks_exact(width).step_by(stride).flatten().copied().collect();
        Ok(Residual { change: None, magnitude_ratio, sample: Some(sample) })
    }

    /// Reads back what else was measured.
    pub fn end(
        &self,
        cx: &mut Stream,
        measured: Measured,
        records: &mut [BlockRecord],
        residual: &mut Residual,
    ) -> Result<()> {
        if let Some(AttentionWatch { received, paid, .. }) = &measured.watch {
            let maps: Vec<&Tensor> = received.iter().chain(paid).map(|(_, map)| map).collect();
            let mut maps = cx.read_all(&maps)?.into_iter();
            for (block, _) in received {
                records[*block].received = maps.next();
            }
            for (block, _) in paid {
                records[*block].paid = maps.next();
            }
        }
        if let Some(changes) = measured.changes.filter(|_| !measured.changed.is_empty()) {
            let sums = changes.sums(cx)?;
            let sums = cx.read(&sums)?;
            for slot in measured.changed {
                let change = relative(&sums[2 * slot..]);
                match records.get_mut(slot) {
                    Some(record) => record.change = change.map(|change| change as f32),
                    None => residual.change = change,
                }
            }
        }
        Ok(())
    }
}

/// The quotient of two sums of [`Changes`]; `None` where that is no number, as for deltas without size.
fn relative(sums: &[f32]) -> Option<f64> {
    let quotient = *sums.first()? / *sums.get(1)?;
    quotient.is_finite().then_some(f64::from(quotient))
}

/// The probe's earlier deltas, newest first. They stay on the GPU: eight numbers a step are read back.
#[derive(Default)]
pub(super) struct Probes {
    last_step: Option<Tensor>,
    computed: VecDeque<Tensor>,
    now: Option<Tensor>,
}

impl Probes {
    /// Runs the first blocks and compares their delta with earlier ones.
    pub fn measure(
        &mut self,
        cx: &mut Stream,
        (model, pass): (&WanTransformer, &Pass),
        blocks: usize,
    ) -> Result<ProbeResult> {
        let delta = cx.copy_of(pass.hidden_states())?;
        model.run_blocks(cx, pass, 0..blocks, None)?;
        ops::subtract_from(cx, pass.hidden_states(), &delta)?;
        let changes = Changes::new(cx, 4, delta.len())?;
        let (newer, older) = (self.computed.front(), self.computed.get(1));
        let pairs = [
            self.last_step.as_ref().map(|to| (&delta, to)),
            newer.map(|to| (&delta, to)),
            older.map(|to| (&delta, to)),
            newer.zip(older),
        ];
        for (slot, pair) in pairs.iter().enumerate() {
            if let Some((a, b)) = pair {
                changes.measure(cx, slot, a, b)?;
            }
        }
        let [since_last_step, since_computed, to_older, between] = pairs.map(|pair| pair.is_some());
        let read = if since_last_step {
            let sums = changes.sums(cx)?;
            cx.read(&sums)?
        } else {
            vec![0.0; 8]
        };
        let result = ProbeResult {
            since_last_step: since_last_step.then(|| relative(&read)).flatten(),
            since_computed: since_computed.then(|| relative(&read[2..])).flatten(),
            progress: (to_older && between).then(|| relative(&[read[4], read[6]])).flatten(),
        };
        self.now = Some(delta);
        Ok(result)
    }

    /// Remembers the delta just measured; `computed`: the whole model ran in its step.
    pub fn keep(&mut self, computed: bool) {
        self.last_step = self.now.take();
        if let (true, Some(delta)) = (computed, &self.last_step) {
            self.computed.truncate(1);
            self.computed.push_front(delta.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_nothing_is_no_number() {
        assert_eq!(relative(&[1.0, 4.0, 9.0]), Some(0.25));
        for sums in [&[0.0, 0.0][..], &[1.0, 0.0], &[f32::NAN, 1.0], &[1.0], &[]] {
            assert_eq!(relative(sums), None, "{sums:?}");
        }
    }
}
