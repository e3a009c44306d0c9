//! Which strategy kept most at each speed-up, and whether its lead is more than noise.
//!
//! Prompts differ more than strategies do. So strategies are compared run by run, on the same
//! prompt and seed, and the interval is that of the mean of these differences (a paired t-test).

use super::report::psnr;
use super::{Entry, OFF_AGAIN, Row};

/// The strategies at one speed-up.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The speed-up to which the strategies were tuned. `None` for strategies with given settings.
    pub target: Option<f64>,
    /// The strategy with the highest mean PSNR.
    pub best: String,
    /// Mean PSNR of the best strategy, in decibels.
    pub psnr: f64,
    /// The lead over the strategy with the next highest mean. `None` for a single strategy.
    pub lead: Option<Lead>,
}

/// The lead of one strategy over another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// The other strategy.
    pub over: String,
    /// Mean difference of PSNR in decibels, over runs on the same prompt and seed.
    pub mean: f64,
    /// Half the length of the 95 % interval of the mean, in decibels. `None` for a single run.
    pub interval: Option<f64>,
    /// Number of runs.
    pub runs: usize,
}

impl Verdict {
    /// The verdict as a sentence.
    pub fn sentence(&self) -> String {
        let at = self.target.map_or("With the given settings".into(), |target| format!("At {target}x"));
        let kept = format!("{at}, {} kept most: {:.1} dB", self.best, self.psnr);
        let Some(Lead { over, mean, interval, runs }) = &self.lead else {
            return format!("{at}, {} kept {:.1} dB.", self.best, self.psnr);
        };
        match interval {
            None => format!("{kept}, {mean:.1} dB more than {over} in a single run, which may be chance."),
            Some(half) if mean > half => {
                let (low, high) = (mean - half, mean + half);
                format!("{kept}, {mean:.1} dB more than {over} (95 % interval {low:.1} to {high:.1} dB, {runs} runs).")
            }
            Some(half) => {
                let (low, high) = (mean - half, mean + half);
                format!(
                    "{kept}, but {over} is as good within the noise ({mean:.1} dB less, 95 % interval {low:.1} to \
                     {high:.1} dB, {runs} runs)."
                )
            }
        }
    }
}

/// A verdict for each speed-up, in the order of the strategies.
pub fn verdicts(entries: &[Entry], rows: &[Row]) -> Vec<Verdict> {
    let mut targets: Vec<Option<f64>> = Vec::new();
    for entry in entries {
        if !targets.contains(&entry.target) {
            targets.push(entry.target);
        }
    }
    targets.into_iter().filter_map(|target| verdict(target, rows)).collect()
}

fn verdict(target: Option<f64>, rows: &[Row]) -> Option<Verdict> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.target == target && row.strategy != OFF_AGAIN).collect();
    let mut names: Vec<&str> = rows.iter().map(|row| row.strategy.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut means: Vec<(&str, f64)> = names.into_iter().map(|name| (name, mean_psnr(&rows, name))).collect();
    means.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (best, psnr) = *means.first()?;
    let lead = means.get(1).and_then(|(over, _)| lead(&rows, best, over));
    Some(Verdict { target, best: best.into(), psnr, lead })
}

fn mean_psnr(rows: &[&Row], name: &str) -> f64 {
    let own: Vec<f64> = rows.iter().filter(|row| row.strategy == name).map(|row| psnr(row)).collect();
    own.iter().sum::<f64>() / own.len().max(1) as f64
}

/// The lead of one strategy over another one, on the prompts and seeds that both have. `None` if
/// there are none.
fn lead(rows: &[&Row], best: &str, over: &str) -> Option<Lead> {
    let of = |name: &str, like: &Row| {
        rows.iter()
            .find(|row| row.strategy == name && row.prompt == like.prompt && row.seed == like.seed)
            .map(|r| psnr(r))
    };
    let own = rows.iter().filter(|row| row.strategy == best);
    let differences: Vec<f64> = own.filter_map(|row| Some(psnr(row) - of(over, row)?)).collect();
    let runs = differences.len();
    (runs > 0).then_some(())?;
    let mean = differences.iter().sum::<f64>() / runs as f64;
    let interval = (runs > 1).then(|| {
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (runs - 1) as f64;
        student(runs - 1) * (variance / runs as f64).sqrt()
    });
    Some(Lead { over: over.into(), mean, interval, runs })
}

/// The 97.5 % point of Student's distribution. Above ten degrees of freedom an approximation holds
/// to 0.03.
fn student(freedom: usize) -> f64 {
    const EXACT: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    match freedom {
        1..=10 => EXACT[freedom - 1],
        _ => 1.96 + 2.4 / freedom as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::StrategyConfig;
    use crate::study::compare::report::tests::row;

    fn entries() -> Vec<Entry> {
        let entry =
            |name: &str| Entry { name: name.into(), target: Some(2.0), expected: None, config: StrategyConfig::off() };
        vec![entry("a"), entry("b")]
    }

    /// Rows of two strategies whose differences of PSNR are given.
    fn rows(differences: &[f64]) -> Vec<Row> {
        let with = |name: &str, seed: usize, psnr: f64| {
            let mut row = row(name, Some(2.0), "x", seed as u64);
            row.fidelity.psnr = psnr;
            row
        };
        let pair = |(seed, d): (usize, &f64)| {
            let base = 30.0 + 7.0 * seed as f64;
            [with("a", seed, base + d), with("b", seed, base)]
        };
        differences.iter().enumerate().flat_map(pair).collect()
    }

    fn sentence(differences: &[f64]) -> String {
        let found = verdicts(&entries(), &rows(differences));
        assert_eq!(found.len(), 1);
        found[0].sentence()
    }

    #[test]
    fn a_steady_lead_is_more_than_noise_although_prompts_differ() {
        // Mean 1, standard deviation 0.1, 3 runs: 4.303 * 0.1 / sqrt(3) = 0.248.
        let text = sentence(&[0.9, 1.0, 1.1]);
        assert!(text.ends_with("1.0 dB more than b (95 % interval 0.8 to 1.2 dB, 3 runs)."), "{text}");
        // The other strategy leads.
        assert!(sentence(&[-0.9, -1.0, -1.1]).starts_with("At 2x, b kept most: 37.0 dB, 1.0 dB more than a"));
    }

    #[test]
    fn a_lead_that_may_be_chance_is_called_so() {
        let text = sentence(&[3.0, -2.0, 1.0]);
        assert!(text.contains("but b is as good within the noise"), "{text}");
        assert!(sentence(&[3.0]).contains("in a single run, which may be chance"));
    }

    #[test]
    fn a_strategy_alone_leads_nobody() {
        let alone: Vec<Row> = rows(&[1.0, 2.0]).into_iter().filter(|row| row.strategy == "a").collect();
        assert_eq!(verdicts(&entries()[..1], &alone)[0].sentence(), "At 2x, a kept 35.0 dB.");
        assert!(verdicts(&entries(), &[]).is_empty());
    }
}
