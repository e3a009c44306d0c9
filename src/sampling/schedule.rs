//! Sigma and timestep schedules.

use super::Error;
use super::limits::MOST_STEPS;

/// Length of the noise schedule in training. A timestep is sigma times this number.
pub const NUM_TRAIN_TIMESTEPS: f64 = 1000.0;

/// Keeps the first sigma of the diffusers grid below 1, because UniPC's half log-SNR is infinite at
/// 1.
const EPSILON: f64 = 1e-6;

/// Which sigmas to step over. The sigmas of every grid are evenly spaced before the shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Grid {
    /// `UniPCMultistepScheduler` of diffusers with `use_flow_sigmas`: from 1 - 1e-6 towards 0.001.
    /// Timesteps are whole numbers.
    #[default]
    Diffusers,
    /// The Wan2.1 repository (`FlowUniPCMultistepScheduler`), and older diffusers: from 0.999
    /// towards 0. Timesteps are whole numbers.
    Reference,
    /// `FlowMatchEulerDiscreteScheduler` of diffusers: from 1 to the shifted 0.001, shifted once
    /// more. Timesteps have fractions.
    FlowMatchEuler,
}

/// Sigmas and timesteps of one run.
///
/// The values are computed in `f64`, so that timesteps are truncated to the same numbers as in the
/// reference implementations. They are kept in `f32`, as the reference implementations do, because
/// the rounding of a first sigma near 1 is visible in UniPC's coefficients.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
}

impl Schedule {
    /// The schedule of `num_inference_steps` steps over `grid`, shifted by `flow_shift`:
    /// `sigma = s b / (1 + (s - 1) b)` for an evenly spaced `b`.
    ///
    /// # Errors
    /// [`Error::Steps`] for a number of steps outside 1 to [`MOST_STEPS`].
    /// [`Error::Shift`] for a shift that is not positive and finite. [`Error::Degenerate`] for a
    /// shift so extreme that the sigmas do not fall strictly.
    pub fn new(grid: Grid, num_inference_steps: usize, flow_shift: f64) -> Result<Self, Error> {
        let steps = num_inference_steps;
        if !(1..=MOST_STEPS).contains(&steps) {
            return Err(Error::Steps(steps));
        }
        if !(flow_shift.is_finite() && flow_shift > 0.0) {
            return Err(Error::Shift(flow_shift));
        }
        let shifted = shifted_sigmas(grid, steps, flow_shift);
        let timesteps = shifted.iter().map(|&sigma| timestep(grid, sigma)).collect();
        let sigmas: Vec<f32> = shifted.iter().map(|&sigma| sigma as f32).chain([0.0]).collect();
        if sigmas.windows(2).all(|pair| pair[0] > pair[1]) {
            Ok(Self { sigmas, timesteps })
        } else {
            Err(Error::Degenerate { shift: flow_shift, steps })
        }
    }

    /// One sigma for each step, falling, and a final 0.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// One timestep for each step, from 0 to 1000. The model is given the timestep.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The number of steps.
    pub fn num_inference_steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The sigmas before and after step `i`.
    ///
    /// # Errors
    /// [`Error::StepOutOfRange`] beyond the schedule.
    pub fn interval(&self, i: usize) -> Result<(f64, f64), Error> {
        match (self.sigmas.get(i), self.sigmas.get(i + 1)) {
            (Some(&from), Some(&to)) => Ok((f64::from(from), f64::from(to))),
            _ => Err(Error::StepOutOfRange { step: i, steps: self.num_inference_steps() }),
        }
    }
}

fn shifted_sigmas(grid: Grid, steps: usize, flow_shift: f64) -> Vec<f64> {
    let shift = |b: f64| flow_shift * b / (1.0 + (flow_shift - 1.0) * b);
    match grid {
        Grid::Reference => {
            // The reference holds its largest sigma as a 32-bit float.
            let base = linspace(f64::from(0.999_f32), 0.0, steps + 1);
            base.take(steps).map(shift).collect()
        }
        Grid::Diffusers => {
            let mut sigmas: Vec<f64> =
                linspace(1.0, 1.0 / NUM_TRAIN_TIMESTEPS, steps + 1).take(steps).map(shift).collect();
            if let Some(first) = sigmas.first_mut().filter(|first| (**first - 1.0).abs() < EPSILON) {
                *first -= EPSILON;
            }
            sigmas
        }
        Grid::FlowMatchEuler => {
            // diffusers shifts its whole training grid in 32-bit floats and takes both ends from
            // it.
            let (b, s) = (1.0 / NUM_TRAIN_TIMESTEPS as f32, flow_shift as f32);
            let smallest = f64::from(s * b / (1.0 + (flow_shift - 1.0) as f32 * b));
            let timesteps = linspace(NUM_TRAIN_TIMESTEPS, smallest * NUM_TRAIN_TIMESTEPS, steps);
            timesteps.map(|t| shift(t / NUM_TRAIN_TIMESTEPS)).collect()
        }
    }
}

fn timestep(grid: Grid, sigma: f64) -> f32 {
    match grid {
        Grid::Diffusers | Grid::Reference => (sigma * NUM_TRAIN_TIMESTEPS).trunc() as f32,
        Grid::FlowMatchEuler => sigma as f32 * NUM_TRAIN_TIMESTEPS as f32,
    }
}

/// `count` evenly spaced values from `start` to `stop`, both included, rounded as numpy's
/// `linspace` rounds them.
fn linspace(start: f64, stop: f64, count: usize) -> impl Iterator<Item = f64> {
    let gaps = count.saturating_sub(1).max(1);
    let step = (stop - start) / gaps as f64;
    (0..count).map(move |i| if i > 0 && i == gaps { stop } else { i as f64 * step + start })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps, shift, first three sigmas, last two sigmas, and all timesteps of the Wan2.1
    /// repository. The table catches these mutations: 1.0 in place of 0.999, the end 0.001 in place
    /// of 0, no shift, rounding in place of truncation.
    type Row = (usize, f64, [f32; 3], [f32; 2], &'static str);
    const REFERENCE: [Row; 7] = [
        (
            50,
            5.0,
            [0.9998, 0.995732, 0.99153],
            [0.172265, 0.092507],
            "999 995 991 987 982 978 973 968 963 957 952 946 940 934 927 920 913 906 898 890 882 873 863 854 843 833 821 809 796 783 768 753 737 720 701 681 660 636 611 584 555 522 487 448 405 356 302 241 172 92",
        ),
        (
            50,
            8.0,
            [0.999875, 0.997328, 0.99469],
            [0.249805, 0.140228],
            "999 997 994 991 989 986 983 979 976 973 969 965 961 957 953 948 944 939 934 928 922 916 910 903 896 888 880 871 862 852 841 830 817 804 789 773 756 737 716 692 666 636 603 565 521 470 409 337 249 140",
        ),
        (
            50,
            3.0,
            [0.999666, 0.992907, 0.985963],
            [0.111008, 0.057637],
            "999 992 985 978 971 963 956 948 939 931 922 913 904 894 884 874 864 853 841 829 817 805 792 778 764 749 734 718 701 684 666 647 627 606 585 562 538 512 486 458 428 396 363 327 290 249 206 160 111 57",
        ),
        (
            30,
            5.0,
            [0.9998, 0.992946, 0.985707],
            [0.26295, 0.146929],
            "999 992 985 978 969 961 952 942 931 920 908 895 882 867 850 833 813 792 768 742 713 681 644 603 555 499 434 356 262 146",
        ),
        (
            30,
            8.0,
            [0.999875, 0.99558, 0.991019],
            [0.363388, 0.216041],
            "999 995 991 986 980 975 969 963 956 948 941 932 922 912 901 888 874 859 841 822 799 773 743 708 666 615 551 470 363 216",
        ),
        (
            20,
            5.0,
            [0.9998, 0.989377, 0.978048],
            [0.356888, 0.20816],
            "999 989 978 965 952 937 920 902 882 859 833 803 768 728 681 624 555 468 356 208",
        ),
        (
            20,
            8.0,
            [0.999875, 0.993334, 0.986166],
            [0.470311, 0.296077],
            "999 993 986 978 969 959 948 936 922 907 888 867 841 811 773 727 666 585 470 296",
        ),
    ];

    #[test]
    fn reference_grid_equals_the_published_tables() {
        for (steps, shift, first, last, timesteps) in REFERENCE {
            let schedule = Schedule::new(Grid::Reference, steps, shift).unwrap();
            let expected: Vec<f32> = timesteps.split(' ').map(|t| t.parse().unwrap()).collect();
            assert_eq!(schedule.timesteps(), expected, "{steps} steps, shift {shift}");
            let sigmas = schedule.sigmas();
            assert_eq!((sigmas.len(), sigmas[steps]), (steps + 1, 0.0));
            for (sigma, expected) in sigmas[..3].iter().zip(first).chain(sigmas[steps - 2..steps].iter().zip(last)) {
                assert!((sigma - expected).abs() < 1.1e-6, "{steps} steps, shift {shift}: {sigma} {expected}");
            }
        }
    }

    #[test]
    fn diffusers_grid_starts_just_below_one() {
        let schedule = Schedule::new(Grid::Diffusers, 50, 5.0).unwrap();
        assert_eq!(schedule.timesteps()[..3], [999.0, 995.0, 991.0]);
        assert_eq!(schedule.timesteps()[47..], [244.0, 175.0, 96.0]);
        assert_eq!(schedule.sigmas()[0], 0.999_999);
    }

    #[test]
    fn every_length_is_strictly_falling() {
        for grid in [Grid::Diffusers, Grid::Reference, Grid::FlowMatchEuler] {
            for steps in 1..=MOST_STEPS {
                let schedule = Schedule::new(grid, steps, 5.0).unwrap();
                assert_eq!(schedule.num_inference_steps(), steps);
                assert!(schedule.timesteps().iter().all(|t| (0.0..=1000.0).contains(t)));
            }
        }
    }

    #[test]
    fn bad_requests_are_errors() {
        for steps in [0, MOST_STEPS + 1, usize::MAX] {
            assert_eq!(Schedule::new(Grid::Diffusers, steps, 5.0), Err(Error::Steps(steps)));
        }
        for shift in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            assert!(matches!(Schedule::new(Grid::Diffusers, 5, shift), Err(Error::Shift(_))));
        }
        for shift in [1e-320, 1e-60, 1e9, 1e30, f64::MAX] {
            for grid in [Grid::Diffusers, Grid::Reference, Grid::FlowMatchEuler] {
                assert!(matches!(Schedule::new(grid, 5, shift), Err(Error::Degenerate { .. })), "{grid:?} {shift}");
            }
        }
        assert!(Schedule::new(Grid::Diffusers, 5, 5.0).unwrap().interval(5).is_err());
    }
}
