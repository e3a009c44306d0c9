//! Classifier-free guidance.

use super::{Buffer, Error, LinearCombination};

/// Classifier-free guidance (Ho & Salimans 2022): `v = v_uncond + g (v_cond - v_uncond)`, without
/// rescaling.
///
/// At a scale of 1 the result is `v_cond`. **No unconditional forward is needed** then, which
/// halves the work. A scale below 1 counts as 1, as in diffusers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    scale: f64,
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

    /// How to make [`Buffer::Velocity`] from [`Buffer::VelocityCond`] and
    /// [`Buffer::VelocityUncond`]. `None` if the conditional forward alone is the velocity; the
    /// caller then writes it to [`Buffer::Velocity`] directly.
    pub fn combine(&self) -> Option<LinearCombination> {
        let terms = [(Buffer::VelocityCond, self.scale), (Buffer::VelocityUncond, 1.0 - self.scale)];
        self.needs_uncond().then(|| LinearCombination::new(Buffer::Velocity, &terms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_below_need_no_second_forward() {
        for scale in [0.0, 0.5, 1.0] {
            let guidance = Guidance::new(scale).unwrap();
            assert!(!guidance.needs_uncond() && guidance.combine().is_none());
        }
        assert!(Guidance::new(f64::NAN).is_err() && Guidance::new(-1.0).is_err());
    }

    #[test]
    fn coefficients_follow_the_formula() {
        let combination = Guidance::new(5.0).unwrap().combine().unwrap();
        assert_eq!(combination.output(), Buffer::Velocity);
        assert_eq!(combination.terms(), [(Buffer::VelocityCond, 5.0), (Buffer::VelocityUncond, -4.0)]);
    }
}
