//! Classifier-free guidance.

use super::Error;

/// Classifier-free guidance (Ho & Salimans 2022): `v = v_uncond + g (v_cond - v_uncond)`, without
/// rescaling.
///
/// At a scale of 1 the result is `v_cond`. **No unconditional forward is needed** then, which
/// halves the work. A scale below 1 counts as 1, as in diffusers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    scale: f64,
}

/// How the velocities of both branches add up to the guided velocity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BranchWeights {
    /// Weight of the conditional velocity.
    pub cond: f32,
    /// Weight of the unconditional velocity.
    pub uncond: f32,
}

impl Guidance {
    /// Guidance of strength `guidance_scale`.
    ///
    /// # Errors
    /// [`Error::GuidanceScale`] if the scale is negative or not finite.
    pub fn new(guidance_scale: f64) -> Result<Self, Error> {
        if guidance_scale.is_finite() && guidance_scale >= 0.0 {
            Ok(Self { scale: guidance_scale })
        } else {
            Err(Error::GuidanceScale(guidance_scale))
        }
    }

    /// Whether a forward with the negative prompt is needed.
    pub fn needs_uncond(&self) -> bool {
        self.scale > 1.0
    }

    /// The weights of both velocities. `None` if the conditional velocity alone is the result.
    pub fn weights(&self) -> Option<BranchWeights> {
        let weights = BranchWeights { cond: self.scale as f32, uncond: (1.0 - self.scale) as f32 };
        self.needs_uncond().then_some(weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_below_need_no_second_forward() {
        for scale in [0.0, 0.5, 1.0] {
            let guidance = Guidance::new(scale).unwrap();
            assert!(!guidance.needs_uncond() && guidance.weights().is_none());
        }
        assert!(Guidance::new(f64::NAN).is_err() && Guidance::new(-1.0).is_err());
    }

    #[test]
    fn coefficients_follow_the_formula() {
        assert_eq!(Guidance::new(5.0).unwrap().weights(), Some(BranchWeights { cond: 5.0, uncond: -4.0 }));
    }
}
