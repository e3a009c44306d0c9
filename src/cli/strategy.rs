//! Strategies on the command line: `--strategy NAME[:KEY=VALUE,...]`.

use std::path::PathBuf;

use crate::caching::{
    DbCache, DeltaDit, DiCache, EasyCache, Intervals, MagCache, ProfilingSettings, StepSchedule, StrategyConfig,
};

use super::WrongUse;

/// Names with their settings, for help and messages.
pub const STRATEGIES: &str =
    "off, profiling, uniform, teacache, magcache, easycache, dbcache, dicache, deltadit, fewer-steps";

/// Options about reuse.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StrategyArgs {
    /// How features are reused, NAME or NAME:KEY=VALUE,... : off, profiling (blocks=0-5/9, warm-up, max, min, carry),
    /// uniform (every, warm-up, last), teacache (threshold, ret), magcache (threshold, skips, retention), easycache
    /// (threshold, first, last), dbcache (threshold, front, back, warm-up), dicache (threshold, probe, retention),
    /// deltadit (share, boundary, every), fewer-steps (steps), or a .json file that holds a strategy
    #[arg(long, value_name = "STRATEGY")]
    pub strategy: Option<String>,
}

/// `KEY=VALUE` pairs that are taken one by one; what is left over is a mistake.
struct Settings<'a> {
    name: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Settings<'a> {
    fn parse(name: &'a str, text: &'a str) -> Result<Self, WrongUse> {
        let pair = |part: &'a str| {
            part.split_once('=')
                .ok_or_else(|| WrongUse(format!("\"{part}\" in the settings of {name} is no KEY=VALUE")))
        };
        let pairs = text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect::<Result<_, _>>()?;
        Ok(Self { name, pairs })
    }

    /// The value of a key, or the default.
    fn take<T: std::str::FromStr>(&mut self, key: &str, default: T) -> Result<T, WrongUse> {
        let Some(index) = self.pairs.iter().position(|(name, _)| name.trim() == key) else { return Ok(default) };
        let (_, value) = self.pairs.remove(index);
        value.trim().parse().map_err(|_| WrongUse(format!("\"{value}\" is no value for {key} of {}", self.name)))
    }

    fn finish(self, config: StrategyConfig) -> Result<StrategyConfig, WrongUse> {
        match self.pairs.first() {
            Some((key, _)) => Err(WrongUse(format!("{} has no setting called {key}", self.name))),
            None => Ok(config),
        }
    }
}

/// `0-5/9/12` as a list of blocks (`/` where other places write a comma, which separates settings here).
fn block_list(text: &str) -> Result<Vec<usize>, WrongUse> {
    const MOST: usize = 1000;
    let wrong = || WrongUse(format!("\"{text}\" is no list of blocks: write for example 0-5/9/12"));
    let mut blocks = Vec::new();
    for part in text.split('/').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last >= MOST {
            return Err(wrong());
        }
        blocks.extend(first..=last);
    }
    Ok(blocks)
}

/// A strategy from its text, for a run of `steps` steps.
///
/// # Errors
/// An unknown name or setting, a value that does not parse, or a file that holds no strategy.
pub fn parse(text: &str, steps: usize) -> anyhow::Result<StrategyConfig> {
    if text.ends_with(".json") {
        return read_file(&PathBuf::from(text));
    }
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    let mut set = Settings::parse(name, settings)?;
    let paper = StepSchedule::for_steps(steps);
    let config = match name {
        "off" => StrategyConfig::Off,
        "profiling" => {
            let blocks = vec![block_list(&set.take("blocks", String::new())?)?];
            let carry = match set.take("carry", "hold".to_string())?.as_str() {
                "hold" => crate::caching::Carry::Hold,
                "extrapolate" => crate::caching::Carry::Extrapolate,
                other => return Err(WrongUse(format!("carry is hold or extrapolate, not {other}")).into()),
            };
            let schedule = schedule(&mut set, paper)?;
            StrategyConfig::Profiling(ProfilingSettings { blocks, schedule, carry, ..Default::default() })
        }
        "uniform" => {
            let uniform = StepSchedule { warm_up: 1, last: 1, intervals: Intervals::Uniform(2) };
            StrategyConfig::Uniform(schedule(&mut set, uniform)?)
        }
        "teacache" => StrategyConfig::TeaCache {
            threshold: set.take("threshold", 0.05)?,
            ret_steps: set.take("ret", false)?,
            coefficients: None,
        },
        "magcache" => {
            let default = MagCache::default();
            StrategyConfig::MagCache(MagCache {
                threshold: set.take("threshold", default.threshold)?,
                max_skips: set.take("skips", default.max_skips)?,
                retention: set.take("retention", default.retention)?,
                ratios: Vec::new(),
            })
        }
        "easycache" => {
            let default = EasyCache::default();
            StrategyConfig::EasyCache(EasyCache {
                threshold: set.take("threshold", default.threshold)?,
                first: set.take("first", default.first * steps / 50)?,
                last: set.take("last", default.last)?,
            })
        }
        "dbcache" => {
            let default = DbCache::default();
            StrategyConfig::DbCache(DbCache {
                threshold: set.take("threshold", default.threshold)?,
                front: set.take("front", default.front)?,
                back: set.take("back", default.back)?,
                warm_up: set.take("warm-up", default.warm_up)?,
                max_skips: set.take("skips", default.max_skips)?,
            })
        }
        "dicache" => {
            let default = DiCache::default();
            StrategyConfig::DiCache(DiCache {
                threshold: set.take("threshold", default.threshold)?,
                probe: set.take("probe", default.probe)?,
                retention: set.take("retention", default.retention)?,
            })
        }
        "deltadit" => {
            let default = DeltaDit::default();
            StrategyConfig::DeltaDit(DeltaDit {
                share: set.take("share", default.share)?,
                boundary: set.take("boundary", default.boundary)?,
                schedule: schedule(&mut set, default.schedule)?,
            })
        }
        "fewer-steps" => StrategyConfig::FewerSteps { steps: set.take("steps", steps / 2)? },
        other => {
            return Err(WrongUse(format!("there is no strategy called {other}: choose one of {STRATEGIES}")).into());
        }
    };
    Ok(set.finish(config)?)
}

/// A schedule from `every` or `max` and `min`, `warm-up` and `last`.
fn schedule(set: &mut Settings, default: StepSchedule) -> Result<StepSchedule, WrongUse> {
    let warm_up = set.take("warm-up", default.warm_up)?;
    let last = set.take("last", default.last)?;
    let every = set.take("every", 0usize)?;
    let intervals = match default.intervals {
        _ if every > 0 => Intervals::Uniform(every),
        Intervals::Decreasing { max, min, rounding } => {
            Intervals::Decreasing { max: set.take("max", max)?, min: set.take("min", min)?, rounding }
        }
        other => other,
    };
    Ok(StepSchedule { warm_up, last, intervals })
}

fn read_file(path: &std::path::Path) -> anyhow::Result<StrategyConfig> {
    use anyhow::Context;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no strategy", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_parse_with_their_settings() {
        assert_eq!(parse("off", 50).unwrap(), StrategyConfig::Off);
        let StrategyConfig::Profiling(profiling) = parse("profiling:blocks=0-2/5,max=8", 50).unwrap() else { panic!() };
        assert_eq!(profiling.blocks, [[0, 1, 2, 5]]);
        assert!(matches!(profiling.schedule.intervals, Intervals::Decreasing { max: 8.0, min: 3.0, .. }));
        let StrategyConfig::Uniform(schedule) = parse("uniform:every=3,warm-up=6", 50).unwrap() else { panic!() };
        assert_eq!(schedule, StepSchedule { warm_up: 6, last: 1, intervals: Intervals::Uniform(3) });
        assert_eq!(parse("fewer-steps:steps=20", 50).unwrap(), StrategyConfig::FewerSteps { steps: 20 });
        for name in STRATEGIES.split(", ") {
            assert_eq!(parse(name, 50).unwrap().name(), name);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, hint) in [
            ("turbo", "turbo"),
            ("easycache:treshold=1", "treshold"),
            ("easycache:threshold=much", "much"),
            ("uniform:3", "KEY=VALUE"),
            ("profiling:blocks=5-2", "5-2"),
            ("profiling:blocks=0-99999999", "list of blocks"),
        ] {
            let message = parse(text, 50).unwrap_err().to_string();
            assert!(message.contains(hint), "{text}: {message}");
        }
    }
}
