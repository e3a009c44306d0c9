//! Measurements of a step: the changes of the blocks and of the whole stack, the attention of the
//! blocks, and the comparisons of probes. The stack is all blocks together.

use std::collections::VecDeque;
use std::ops::Range;

use crate::caching::ProbeResult;
use crate::gpu::{Stream, Tensor};
use crate::model::family::{AttentionWatch, Pass, Run};
use crate::ops::{self, Changes};

use super::capture::BlockRecord;
use super::control::{Control, Stopwatch};
use super::{EngineError, Observe};

type Result<T> = std::result::Result<T, EngineError>;

/// Most rows in a sample of a residual. They are enough for inner products, and small even for
/// large models.
const SAMPLE_ROWS: usize = 256;

/// Mean of |a - b|.
pub(super) fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len().max(1) as f64
}

/// Mean of |a|.
pub(super) fn size(a: &[f32]) -> f64 {
    a.iter().map(|a| f64::from(a.abs())).sum::<f64>() / a.len().max(1) as f64
}

/// Measures a branch: the deltas of its blocks from step to step, and its attention.
pub(super) struct Meter<'a> {
    observe: Observe,
    /// Pauses do not count as time of a block.
    control: &'a Control,
    /// The last delta of every block, then of the stack. They are kept for measuring only.
    deltas: Vec<Option<Tensor>>,
    /// Magnitude of each token in the stack's last delta.
    magnitudes: Vec<f64>,
    /// The attention to record at every step.
    watch: Option<AttentionWatch>,
}

/// Measurements of the stack's residual.
#[derive(Default)]
pub(super) struct Residual {
    pub change: Option<f64>,
    pub magnitude_ratio: Option<f64>,
    /// Some rows of the residual.
    pub sample: Option<Vec<f32>>,
}

/// Measurements of the blocks in one step. They stay on the GPU until the step's end, so that the
/// GPU need not stop between blocks.
pub(super) struct Measured {
    /// Seconds of blocks, where times are measured.
    seconds: Vec<(usize, f64)>,
    /// The hidden states before the first block, if the whole stack may be measured.
    before: Option<Tensor>,
    /// Some rows of the hidden states before the first block and after the last, where residuals
    /// are measured and changes are not.
    rows: Option<Tensor>,
    rows_after: Option<Tensor>,
    watch: Option<AttentionWatch>,
    /// Changes of the blocks and of the stack that `changed` lists, where changes are measured.
    changes: Option<Changes>,
    changed: Vec<usize>,
    /// The sums of these changes, at the end of the step.
    sums: Option<Tensor>,
    stack: Option<Stack>,
}

impl Measured {
    /// The tensors to read back, in the order in which [`Meter::end`] takes them.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let maps = self.watch.iter().flat_map(|watch| watch.received.iter().chain(&watch.paid)).map(|(_, map)| map);
        let of_stack = self.stack.iter().flat_map(|stack| [&stack.factors, &stack.sample]);
        let rows = self.rows_after.iter().chain(self.rows_after.as_ref().and(self.rows.as_ref()));
        maps.chain(&self.sums).chain(of_stack).chain(rows)
    }
}

/// What is read back of the stack's residual. The residual itself is as large as the hidden states.
struct Stack {
    /// 1 / sqrt(mean of squares) of each token.
    factors: Tensor,
    /// Some rows of the residual.
    sample: Tensor,
}

impl<'a> Meter<'a> {
    /// A meter for a model of `blocks` blocks.
    pub fn new(control: &'a Control, observe: Observe, blocks: usize, watch: Option<AttentionWatch>) -> Self {
        let deltas = if observe.changes { vec![None; blocks + 1] } else { Vec::new() };
        Self { observe, control, deltas, magnitudes: Vec::new(), watch }
    }

    /// Begins a step with these hidden states of the video's tokens. `whole` says that all blocks
    /// may run, so that the stack can be measured.
    pub fn begin(&self, cx: &mut Stream, hidden_states: &Tensor, whole: bool) -> Result<Measured> {
        let changes = self.observe.changes;
        let rows = (whole && self.observe.residuals && !changes).then(|| match sampled(cx, hidden_states)? {
            // The blocks write to the hidden states.
            all if all.rows() == hidden_states.rows() => Ok(cx.copy_of(&all)?),
            some => Result::Ok(some),
        });
        let rows = rows.transpose()?;
        let before = (whole && changes).then(|| cx.copy_of(hidden_states)).transpose()?;
        let changes = changes.then(|| Changes::new(cx, self.deltas.len(), hidden_states.len())).transpose()?;
        let (seconds, changed, watch) = (Vec::new(), Vec::new(), self.watch.clone());
        Ok(Measured { seconds, before, rows, rows_after: None, watch, changes, changed, sums: None, stack: None })
    }

    /// Keeps `after - before` as the delta of a block (or of the stack) and measures its change.
    /// `before` becomes the delta.
    fn keep(
        &mut self,
        cx: &mut Stream,
        slot: usize,
        before: Tensor,
        after: &Tensor,
        measured: &mut Measured,
    ) -> Result<()> {
        match (&measured.changes, &self.deltas[slot]) {
            (Some(changes), Some(old)) => {
                changes.measure_delta(cx, slot, &before, after, old)?;
                measured.changed.push(slot);
            }
            _ => ops::subtract_from(cx, after, &before)?,
        }
        self.deltas[slot] = Some(before);
        Ok(())
    }

    /// Runs blocks. Where changes or times are measured, they run one by one.
    pub fn run_blocks(
        &mut self,
        cx: &mut Stream,
        run: &dyn Run,
        pass: &Pass,
        range: Range<usize>,
        measured: &mut Measured,
    ) -> Result<()> {
        if !self.observe.changes && !self.observe.times {
            return Ok(run.run_blocks(cx, pass, range, measured.watch.as_mut())?);
        }
        let video = run.video_rows(pass);
        for block in range {
            let before = self.observe.changes.then(|| cx.copy_of(&video)).transpose()?;
            if self.observe.times {
                cx.finish()?;
            }
            let start = Stopwatch::start(self.control);
            run.run_blocks(cx, pass, block..block + 1, measured.watch.as_mut())?;
            if self.observe.times {
                cx.finish()?;
                measured.seconds.push((block, start.seconds()));
            }
            if let Some(before) = before {
                self.keep(cx, block, before, &video, measured)?;
            }
        }
        Ok(())
    }

    /// Keeps the stack's residual and measures its change, if the step was begun as a whole.
    fn residual(&mut self, cx: &mut Stream, after: &Tensor, measured: &mut Measured) -> Result<()> {
        let Some(before) = measured.before.take() else { return Ok(()) };
        let (residual, stack) = (before.clone(), self.deltas.len() - 1);
        self.keep(cx, stack, before, after, measured)?;
        let factors = ops::inverse_rms(cx, &residual, 0..residual.columns(), 0.0)?;
        measured.stack = Some(Stack { factors, sample: sampled(cx, &residual)? });
        Ok(())
    }

    /// Sums up the measurements. `after` are the hidden states after the last block; `whole` says
    /// that all blocks ran.
    pub fn sum_up(&mut self, cx: &mut Stream, after: &Tensor, whole: bool, measured: &mut Measured) -> Result<()> {
        if whole {
            self.residual(cx, after, measured)?;
            measured.rows_after = measured.rows.is_some().then(|| sampled(cx, after)).transpose()?;
        }
        let changes = measured.changes.take().filter(|_| !measured.changed.is_empty());
        measured.sums = changes.map(|changes| changes.sums(cx)).transpose()?;
        Ok(())
    }

    /// Takes what was read back, in the order of [`Measured::tensors`], from `values`.
    pub fn end(
        &mut self,
        measured: Measured,
        values: &mut impl Iterator<Item = Vec<f32>>,
        records: &mut [BlockRecord],
    ) -> Residual {
        let Measured { seconds, watch, changed, sums, stack, rows_after, .. } = measured;
        seconds.into_iter().for_each(|(block, seconds)| records[block].seconds = Some(seconds as f32));
        let (received, paid) = watch.map_or((Vec::new(), Vec::new()), |watch| (watch.received, watch.paid));
        for (block, _) in received {
            records[block].received = values.next();
        }
        for (block, _) in paid {
            records[block].paid = values.next();
        }
        let mut residual = Residual::default();
        if let Some(sums) = sums.and_then(|_| values.next()) {
            for slot in changed {
                let change = relative(&sums[2 * slot..]);
                match records.get_mut(slot) {
                    Some(record) => record.change = change.map(|change| change as f32),
                    None => residual.change = change,
                }
            }
        }
        if let Some((stack, factors)) = stack.and_then(|stack| Some((stack, values.next()?))) {
            // Values after the last token are padding.
            let tokens = self.deltas.last().and_then(|delta| Some(delta.as_ref()?.rows())).unwrap_or(factors.len());
            residual.magnitude_ratio = self.magnitude_ratio(&factors[..tokens], stack.sample.columns());
            residual.sample = values.next();
        }
        if rows_after.is_some()
            && let (Some(mut after), Some(before)) = (values.next(), values.next())
        {
            after.iter_mut().zip(&before).for_each(|(after, before)| *after -= before);
            residual.sample = Some(after);
        }
        residual
    }

    /// The ratio of the new magnitude to the last measured magnitude, averaged over tokens.
    fn magnitude_ratio(&mut self, factors: &[f32], width: usize) -> Option<f64> {
        let magnitudes: Vec<f64> = factors.iter().map(|factor| (width as f64).sqrt() / f64::from(*factor)).collect();
        let before = std::mem::replace(&mut self.magnitudes, magnitudes);
        let ratios = self.magnitudes.iter().zip(&before).map(|(new, old)| new / old);
        // A token without a residual has no ratio, and captures store only finite numbers.
        (!before.is_empty()).then(|| ratios.sum::<f64>() / before.len() as f64).filter(|ratio| ratio.is_finite())
    }
}

/// At most [`SAMPLE_ROWS`] rows of a matrix, evenly spread.
fn sampled(cx: &mut Stream, matrix: &Tensor) -> Result<Tensor> {
    match matrix.rows().div_ceil(SAMPLE_ROWS) {
        0 | 1 => Ok(matrix.clone()),
        stride => Ok(ops::sample_rows(cx, matrix, stride)?),
    }
}

/// The quotient of two sums of [`Changes`]. `None` where that is no number, for example for a delta
/// of zeros.
fn relative(sums: &[f32]) -> Option<f64> {
    let quotient = *sums.first()? / *sums.get(1)?;
    quotient.is_finite().then_some(f64::from(quotient))
}

/// The probe's earlier deltas, newest first. They stay on the GPU. Only eight numbers are read back
/// in each step.
#[derive(Default)]
pub(super) struct Probes {
    /// The delta of the last step, unless the whole model ran in it.
    last_step: Option<Tensor>,
    /// The deltas of the last two steps in which the whole model ran.
    computed: VecDeque<Tensor>,
    now: Option<Tensor>,
}

impl Probes {
    /// Runs the first blocks with `run`, and compares their delta with earlier deltas.
    pub fn measure(
        &mut self,
        cx: &mut Stream,
        hidden_states: &Tensor,
        run: impl FnOnce(&mut Stream) -> Result<()>,
    ) -> Result<ProbeResult> {
        let delta = cx.copy_of(hidden_states)?;
        run(cx)?;
        ops::subtract_from(cx, hidden_states, &delta)?;
        let changes = Changes::new(cx, 4, delta.len())?;
        let (newer, older) = (self.computed.front(), self.computed.get(1));
        let pairs = [
            self.last_step.as_ref().or(newer).map(|to| (&delta, to)),
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

    /// Number of bytes of the kept deltas.
    pub fn bytes(&self) -> u64 {
        self.computed.iter().chain(&self.last_step).map(Tensor::bytes).sum()
    }

    /// Remembers the new delta. `computed` says that the whole model ran in its step.
    pub fn keep(&mut self, computed: bool) {
        self.last_step = self.now.take();
        if computed && let Some(delta) = self.last_step.take() {
            self.computed.truncate(1);
            self.computed.push_front(delta);
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
