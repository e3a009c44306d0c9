//! The calibration of a model: numbers from its own full runs that calibrated rules and the planner
//! need.

use serde::{Deserialize, Serialize};

use super::completion::completed_at;
use super::{CacheError, Signal};
use crate::sampling::limits::MOST_STORED_STEPS;

/// Measured on full runs of one model, sampler and number of steps; means over prompts and seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Noise level of each step, and 0 after the last.
    pub sigmas: Vec<f64>,
    /// `gram[i][j]`: inner product of the guided residuals of steps i and j, divided by the number
    /// of values. A residual is what all blocks together add.
    pub gram: Vec<Vec<f64>>,
    /// How far an error is carried on: the squared error of the clean latents, divided by the
    /// squared error of a step's residual times the step's length squared.
    pub amplification: Vec<f64>,
    /// MagCache's gamma: ratio of the residual's magnitude to that of the step before; 1 at step 0.
    pub magnitude_ratios: Vec<f64>,
    /// TeaCache's polynomial for the time embedding, highest power first.
    pub tea_embedding: Option<[f64; 5]>,
    /// TeaCache's polynomial for the time projection (`ret_steps`).
    pub tea_projection: Option<[f64; 5]>,
    /// Measured outcomes of plans: predicted squared error of the latents, and PSNR in dB.
    pub outcomes: Vec<(f64, f64)>,
}

impl Calibration {
    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.gram.len()
    }

    /// TeaCache's polynomial for one of its two signals.
    pub fn tea_coefficients(&self, signal: Signal) -> Option<[f64; 5]> {
        match signal {
            Signal::Embedding => self.tea_embedding,
            Signal::Projection => self.tea_projection,
        }
    }

    /// Fails unless all sizes agree and all numbers are finite.
    ///
    /// # Errors
    /// [`CacheError::Settings`], saying what is wrong.
    pub fn check(&self) -> Result<(), CacheError> {
        let steps = self.steps();
        let sizes = self.sigmas.len() == steps + 1
            && self.magnitude_ratios.len() == steps
            && self.amplification.len() == steps
            && self.gram.iter().all(|row| row.len() == steps);
        if !(1..=MOST_STORED_STEPS).contains(&steps) || !sizes {
            return Err(CacheError::Settings("the calibration's tables do not fit each other".into()));
        }
        let tea = self.tea_embedding.iter().chain(&self.tea_projection).flatten();
        let outcomes = self.outcomes.iter().flat_map(|(error, psnr)| [error, psnr]);
        let gram = self.gram.iter().flatten();
        let all = self
            .sigmas
            .iter()
            .chain(gram)
            .chain(&self.magnitude_ratios)
            .chain(&self.amplification)
            .chain(tea)
            .chain(outcomes);
        let faults = [
            (!all.into_iter().all(|value| value.is_finite()), "values that are no numbers"),
            (!self.sigmas.windows(2).all(|pair| pair[0] > pair[1]), "sigmas that do not fall"),
            (!(0..steps).all(|step| self.gram[step][step] > 0.0), "residuals without size"),
            (!is_gram(&self.gram), "a table that cannot be inner products"),
            (self.amplification.iter().any(|value| *value < 0.0), "negative amplification"),
            (self.magnitude_ratios.iter().any(|value| *value <= 0.0), "magnitude ratios that are not positive"),
        ];
        match faults.iter().find(|(found, _)| *found) {
            None => Ok(()),
            Some((_, fault)) => Err(CacheError::Settings(format!("the calibration holds {fault}"))),
        }
    }

    /// The calibration for another schedule of the same model. Residuals between measured sigmas
    /// are completed; all else is interpolated. `None` for fewer than two sigmas, or for sigmas
    /// that do not fall.
    pub fn resampled(&self, sigmas: &[f64]) -> Option<Self> {
        if sigmas.len() < 2 || !sigmas.windows(2).all(|pair| pair[0] > pair[1]) || self.steps() == 0 {
            return None;
        }
        if sigmas == self.sigmas {
            return Some(self.clone());
        }
        let places: Vec<(usize, usize, f64)> =
            sigmas[..sigmas.len() - 1].iter().map(|sigma| self.place(*sigma)).collect();
        let at = |(low, high, share): (usize, usize, f64)| [(low, 1.0 - share), (high, share)];
        // How the magnitude grew until each measured step, as a logarithm: between these it grows
        // evenly.
        let sum = |grown: &mut f64, ratio: &f64| {
            *grown += ratio.ln();
            Some(*grown)
        };
        let growth: Vec<f64> = self.magnitude_ratios.iter().scan(0.0, sum).collect();
        let grown = |place: &(usize, usize, f64)| at(*place).map(|(i, w)| w * growth[i]).iter().sum::<f64>();
        let ratio = |pair: &[(usize, usize, f64)]| (grown(&pair[1]) - grown(&pair[0])).exp();
        Some(Self {
            sigmas: sigmas.to_vec(),
            gram: completed_at(&sigmas[..sigmas.len() - 1], &[(&self.sigmas[..self.steps()], &self.gram)])?,
            amplification: places
                .iter()
                .map(|place| at(*place).map(|(i, w)| w * self.amplification[i]).iter().sum())
                .collect(),
            magnitude_ratios: std::iter::once(1.0).chain(places.windows(2).map(ratio)).collect(),
            ..self.clone()
        })
    }

    /// The two measured steps around a sigma, and the share of the second.
    fn place(&self, sigma: f64) -> (usize, usize, f64) {
        let last = self.steps() - 1;
        match (1..=last).find(|step| self.sigmas[*step] <= sigma) {
            _ if sigma >= self.sigmas[0] => (0, 0, 0.0),
            Some(high) => {
                let (above, below) = (self.sigmas[high - 1], self.sigmas[high]);
                (high - 1, high, (above - sigma) / (above - below))
            }
            None => (last, last, 0.0),
        }
    }

    /// The PSNR to expect of a plan whose latents have this squared error. The value is
    /// interpolated between measured outcomes; beyond these it changes by 10 dB for a factor of
    /// ten. It is infinite without an error, because the clips are the same. `None` without
    /// outcomes.
    pub fn expected_psnr(&self, error: f64) -> Option<f64> {
        let mut known = self.outcomes.clone();
        known.retain(|(error, _)| *error > 0.0);
        known.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (first, last) = (known.first()?, known.last()?);
        if error <= 0.0 {
            return Some(f64::INFINITY);
        }
        let decibels = |ratio: f64| 10.0 * ratio.log10();
        if error <= first.0 {
            return Some(first.1 + decibels(first.0 / error));
        }
        let Some(pair) = known.windows(2).find(|pair| error <= pair[1].0) else {
            return Some(last.1 - decibels(error / last.0));
        };
        let share = (error / pair[0].0).ln() / (pair[1].0 / pair[0].0).ln().max(f64::MIN_POSITIVE);
        Some(pair[0].1 + share.clamp(0.0, 1.0) * (pair[1].1 - pair[0].1))
    }
}

/// Whether a square table is symmetric, and no inner product is larger than both sizes allow.
pub(super) fn is_gram(table: &[Vec<f64>]) -> bool {
    // Means over runs are sums of numbers that were rounded once.
    const ROUNDING: f64 = 1e-6;
    let pair = |i: usize, j: usize| {
        let (value, most) = (table[i][j], (table[i][i] * table[j][j]).sqrt());
        value.abs() <= most * (1.0 + ROUNDING) && (value - table[j][i]).abs() <= most * ROUNDING
    };
    (0..table.len()).all(|i| (0..i).all(|j| pair(i, j)))
}

/// Collects the residuals of full runs into a Gram matrix.
#[derive(Clone, Debug, Default)]
pub struct GramRecorder {
    sum: Vec<Vec<f64>>,
    runs: usize,
}

impl GramRecorder {
    /// Adds the residuals of all steps of one run.
    pub fn add(&mut self, residuals: &[Vec<f32>]) {
        let steps = residuals.len();
        if self.sum.is_empty() {
            self.sum = vec![vec![0.0; steps]; steps];
        }
        if self.sum.len() != steps {
            return;
        }
        let inner = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / a.len().max(1) as f64
        };
        for i in 0..steps {
            for j in 0..=i {
                let value = inner(&residuals[i], &residuals[j]);
                self.sum[i][j] += value;
                if i != j {
                    self.sum[j][i] += value;
                }
            }
        }
        self.runs += 1;
    }

    /// The mean over runs; empty without runs.
    pub fn gram(&self) -> Vec<Vec<f64>> {
        let scale = 1.0 / self.runs.max(1) as f64;
        self.sum.iter().map(|row| row.iter().map(|value| value * scale).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        Calibration {
            sigmas: vec![1.0, 0.5, 0.0],
            gram: vec![vec![1.0, 0.5], vec![0.5, 1.0]],
            amplification: vec![1.0, 1.0],
            magnitude_ratios: vec![1.0, 0.9],
            tea_embedding: None,
            tea_projection: Some([0.0; 5]),
            outcomes: vec![(1e-2, 30.0), (1e-4, 46.0)],
        }
    }

    #[test]
    fn expectations_interpolate_and_extend() {
        let calibration = calibration();
        assert_eq!(calibration.expected_psnr(1e-3).map(f64::round), Some(38.0));
        assert_eq!(calibration.expected_psnr(1e-5).map(f64::round), Some(56.0));
        assert_eq!(calibration.expected_psnr(1e-1).map(f64::round), Some(20.0));
        assert_eq!(calibration.expected_psnr(0.0), Some(f64::INFINITY), "without an error the clips are the same");
        assert_eq!(Calibration { outcomes: vec![], ..calibration }.expected_psnr(1.0), None);
    }

    #[test]
    fn resampling_completes_what_lies_between() {
        let calibration = calibration();
        assert_eq!(calibration.resampled(&calibration.sigmas), Some(calibration.clone()));
        let finer = calibration.resampled(&[1.0, 0.75, 0.5, 0.0]).unwrap();
        assert!(finer.check().is_ok());
        assert!((finer.gram[0][2] - 0.5).abs() < 1e-9 && (finer.gram[2][2] - 1.0).abs() < 1e-9);
        assert!(finer.gram[0][1] > 0.5 && finer.gram[1][1] > 0.25 * (1.0 + 0.5 + 0.5 + 1.0), "{:?}", finer.gram);
        assert!((finer.magnitude_ratios[1] - 0.9f64.sqrt()).abs() < 1e-12);
        // Over steps that are left out the magnitude grows by the product of their ratios.
        let fine = Calibration { magnitude_ratios: vec![1.0, 0.9, 0.7, 0.5], ..finer };
        let fine = Calibration { sigmas: vec![1.0, 0.75, 0.5, 0.25, 0.0], ..fine };
        let gram = (0..4).map(|i| (0..4).map(|j| if i == j { 1.0 } else { 0.9 }).collect()).collect();
        let fine = Calibration { gram, amplification: vec![1.0; 4], ..fine };
        let coarse = fine.resampled(&[1.0, 0.25, 0.0]).unwrap();
        assert!((coarse.magnitude_ratios[1] - 0.9 * 0.7 * 0.5).abs() < 1e-12, "{:?}", coarse.magnitude_ratios);
        assert!(calibration.resampled(&[0.5, 0.5]).is_none());
    }

    #[test]
    fn broken_tables_are_refused() {
        assert!(calibration().check().is_ok());
        let broken: [fn(&mut Calibration); 11] = [
            |c| c.gram[1][1] = 0.0,
            |c| c.gram[1].clear(),
            |c| c.gram.clear(),
            |c| c.sigmas[1] = 2.0,
            |c| c.magnitude_ratios[0] = f64::NAN,
            |c| c.outcomes[0].1 = f64::INFINITY,
            |c| c.amplification[1] = -1.0,
            |c| c.magnitude_ratios[1] = -0.9,
            |c| c.magnitude_ratios[1] = 0.0,
            |c| c.gram[1][0] = 0.4,
            |c| (c.gram[1][0], c.gram[0][1]) = (1.1, 1.1),
        ];
        for breaks in broken {
            let mut calibration = calibration();
            breaks(&mut calibration);
            assert!(calibration.check().is_err());
        }
    }

    #[test]
    fn gram_of_two_runs() {
        let mut recorder = GramRecorder::default();
        recorder.add(&[vec![1.0, 0.0], vec![1.0, 1.0]]);
        recorder.add(&[vec![0.0, 2.0], vec![2.0, 0.0]]);
        assert_eq!(recorder.gram(), [[1.25, 0.25], [0.25, 1.5]]);
    }
}
