//! Initial noise, equal to the numbers of PyTorch's CPU generator.
//!
//! `randn(seed, n)` equals `torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed))`, so
//! a seed gives the same clip as diffusers with a CPU generator. The values agree to 1e-6. They are
//! not identical because torch computes logarithm and cosine with vector instructions whose
//! rounding differs between machines.

use std::f64::consts::TAU;

/// The name of the generator, for captures.
pub const GENERATOR: &str = "torch-cpu-mt19937";

/// Torch makes normal numbers in blocks of this size.
const BLOCK: usize = 16;

/// `n` samples of N(0, 1).
///
/// Only the low 32 bits of `seed` matter, as in torch. Seeds that differ by 2^32 give the same
/// noise.
pub fn randn(seed: u64, n: usize) -> Vec<f32> {
    let mut generator = Mt19937::new(seed as u32);
    if n < BLOCK { few(&mut generator, n) } else { blocks(&mut generator, n) }
}

/// Sixteen or more normals. Torch first draws uniforms for all values, then applies Box-Muller
/// within blocks of 16. If the last block is partial, torch draws the last 16 values again.
fn blocks(generator: &mut Mt19937, n: usize) -> Vec<f32> {
    let mut values: Vec<f32> = (0..n).map(|_| generator.uniform_24()).collect();
    values.chunks_exact_mut(BLOCK).for_each(box_muller);
    if !n.is_multiple_of(BLOCK) {
        let (_, last) = values.split_at_mut(n - BLOCK);
        last.fill_with(|| generator.uniform_24());
        box_muller(last);
    }
    values
}

/// Turns 16 uniforms into normals. The first half of the block gives radii, the second half angles.
fn box_muller(block: &mut [f32]) {
    let (firsts, seconds) = block.split_at_mut(BLOCK / 2);
    for (first, second) in firsts.iter_mut().zip(seconds) {
        // 1 - u lies in (0, 1], where the logarithm is finite. Torch rounds the angle to 32 bits.
        let radius = (-2.0 * f64::from(1.0 - *first).ln()).sqrt() as f32;
        let angle = f64::from(TAU as f32 * *second);
        (*first, *second) = (radius * angle.cos() as f32, radius * angle.sin() as f32);
    }
}

/// Fewer than 16 normals. Torch applies Box-Muller in double precision and makes each pair of
/// normals from two uniforms.
fn few(generator: &mut Mt19937, n: usize) -> Vec<f32> {
    let pairs = std::iter::repeat_with(|| {
        let (angle, radius) = (TAU * generator.uniform_53(), generator.uniform_53());
        let radius = (-2.0 * (-radius).ln_1p()).sqrt();
        [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
    });
    pairs.flatten().take(n).collect()
}

const STATE: usize = 624;
const MIDDLE: usize = 397;

/// The Mersenne Twister of Matsumoto & Nishimura (1998), 32-bit.
struct Mt19937 {
    state: [u32; STATE],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [seed; STATE];
        for i in 1..STATE {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: STATE }
    }

    /// The next 32 random bits.
    fn bits(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + MIDDLE) % STATE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// A multiple of 2^-24 in [0, 1).
    fn uniform_24(&mut self) -> f32 {
        (self.bits() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// A multiple of 2^-53 in [0, 1). The first draw gives the upper bits.
    fn uniform_53(&mut self) -> f64 {
        let bits = (u64::from(self.bits()) << 32) | u64::from(self.bits());
        (bits & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the ten-thousandth output for the seed 5489. The C++ standard specifies the
    /// latter for `std::mt19937`.
    #[test]
    fn mersenne_twister_is_the_standard_one() {
        let mut generator = Mt19937::new(5489);
        assert_eq!(generator.bits(), 3_499_211_612);
        assert_eq!((1..10_000).map(|_| generator.bits()).last(), Some(4_123_659_995));
    }

    #[test]
    fn noise_is_standard_normal() {
        let noise = randn(7, 100_000);
        let mean = noise.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
        let variance = noise.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.01, "{mean} {variance}");
    }

    #[test]
    fn no_values_are_no_values() {
        assert!(randn(0, 0).is_empty());
    }
}
