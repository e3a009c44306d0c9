//! The file `scheduler/scheduler_config.json`.

use super::{class_name, parse, require};
use crate::model::ModelError;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The schedulers that a model folder can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum SchedulerClass {
    /// diffusers' `UniPCMultistepScheduler` (flow prediction, `bh2`, final sigma zero).
    #[serde(rename = "UniPCMultistepScheduler")]
    UniPc,
    /// diffusers' `FlowMatchEulerDiscreteScheduler`.
    #[serde(rename = "FlowMatchEulerDiscreteScheduler")]
    FlowMatchEuler,
}

/// The sampling that the model's folder asks for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SchedulerConfig {
    /// The scheduler.
    pub class: SchedulerClass,
    /// Shift of the sigma schedule (diffusers' `flow_shift` or `shift`). A larger shift takes more
    /// steps on noisy latents. `None` if the file leaves it open with `null`.
    pub flow_shift: Option<f64>,
    /// The timestep of sigma 1.
    pub num_train_timesteps: usize,
    /// Order of the UniPC solver, 1 or 2. Euler has order 1.
    pub solver_order: usize,
}

impl Default for SchedulerConfig {
    /// Wan2.1's `generate.py`: UniPC of order 2, shift 5.
    fn default() -> Self {
        Self { class: SchedulerClass::UniPc, flow_shift: Some(5.0), num_train_timesteps: 1000, solver_order: 2 }
    }
}

/// The options of both classes. Options that would change the schedule or the solver are read in
/// order to refuse them.
#[derive(Deserialize)]
#[serde(default)]
struct Diffusers {
    num_train_timesteps: usize,
    flow_shift: Option<f64>,
    shift: Option<f64>,
    solver_order: usize,
    solver_type: String,
    prediction_type: String,
    predict_x0: bool,
    lower_order_final: bool,
    disable_corrector: Vec<usize>,
    final_sigmas_type: String,
    thresholding: bool,
    use_flow_sigmas: bool,
    use_karras_sigmas: bool,
    use_exponential_sigmas: bool,
    use_beta_sigmas: bool,
    use_dynamic_shifting: bool,
    invert_sigmas: bool,
    stochastic_sampling: bool,
    shift_terminal: Option<f64>,
}

impl Default for Diffusers {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            flow_shift: Some(1.0),
            shift: Some(1.0),
            solver_order: 2,
            solver_type: "bh2".into(),
            prediction_type: "epsilon".into(),
            predict_x0: true,
            lower_order_final: true,
            disable_corrector: Vec::new(),
            final_sigmas_type: "zero".into(),
            thresholding: false,
            use_flow_sigmas: false,
            use_karras_sigmas: false,
            use_exponential_sigmas: false,
            use_beta_sigmas: false,
            use_dynamic_shifting: false,
            invert_sigmas: false,
            stochastic_sampling: false,
            shift_terminal: None,
        }
    }
}

impl SchedulerConfig {
    /// Parses a diffusers `scheduler_config.json`. Messages name `path`.
    ///
    /// # Errors
    /// [`ModelError::Json`] or [`ModelError::Config`].
    pub fn from_json(path: &Path, json: &str) -> Result<Self, ModelError> {
        let class = match class_name(path, json)?.as_str() {
            "UniPCMultistepScheduler" => SchedulerClass::UniPc,
            "FlowMatchEulerDiscreteScheduler" => SchedulerClass::FlowMatchEuler,
            other => {
                let expected = "UniPCMultistepScheduler or FlowMatchEulerDiscreteScheduler";
                return Err(ModelError::config(path, format!("_class_name is {other:?}; expected {expected}")));
            }
        };
        let read: Diffusers = parse(path, json)?;
        read.check(path)?;
        let config = match class {
            SchedulerClass::UniPc => {
                read.check_unipc(path)?;
                Self {
                    class,
                    flow_shift: read.flow_shift,
                    num_train_timesteps: read.num_train_timesteps,
                    solver_order: read.solver_order,
                }
            }
            SchedulerClass::FlowMatchEuler => {
                Self { class, flow_shift: read.shift, num_train_timesteps: read.num_train_timesteps, solver_order: 1 }
            }
        };
        let shift = config.flow_shift.unwrap_or(1.0);
        require(path, shift.is_finite() && shift > 0.0, || {
            format!("the shift is {shift}; expected a positive number")
        })?;
        Ok(config)
    }

    /// The solver and the shift in a few words.
    pub fn in_words(&self) -> String {
        let class = match self.class {
            SchedulerClass::UniPc => "UniPC",
            SchedulerClass::FlowMatchEuler => "Euler",
        };
        let shift = self.flow_shift.map_or("shift left open".into(), |shift| format!("shift {shift}"));
        format!("{class}, {shift}")
    }
}

impl Diffusers {
    fn check(&self, path: &Path) -> Result<(), ModelError> {
        let off = [
            ("use_karras_sigmas", self.use_karras_sigmas),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("use_dynamic_shifting", self.use_dynamic_shifting),
            ("invert_sigmas", self.invert_sigmas),
            ("stochastic_sampling", self.stochastic_sampling),
            ("shift_terminal", self.shift_terminal.is_some()),
        ];
        refuse(path, &off, "is set, which Wan2.1 does not use")?;
        let steps = self.num_train_timesteps;
        require(path, (1..=1_000_000).contains(&steps), || format!("num_train_timesteps is {steps}"))
    }

    fn check_unipc(&self, path: &Path) -> Result<(), ModelError> {
        let off = [
            ("prediction_type other than flow_prediction", self.prediction_type != "flow_prediction"),
            ("use_flow_sigmas: false", !self.use_flow_sigmas),
            ("solver_type other than bh2", self.solver_type != "bh2"),
            ("solver_order other than 1 and 2", !(1..=2).contains(&self.solver_order)),
            ("predict_x0: false", !self.predict_x0),
            ("lower_order_final: false", !self.lower_order_final),
            ("disable_corrector", !self.disable_corrector.is_empty()),
            ("final_sigmas_type other than zero", self.final_sigmas_type != "zero"),
            ("thresholding", self.thresholding),
        ];
        refuse(path, &off, "is set, which Wan2.1 does not use")
    }
}

fn refuse(path: &Path, options: &[(&str, bool)], why: &str) -> Result<(), ModelError> {
    let found = options.iter().find(|(_, set)| *set);
    require(path, found.is_none(), || format!("{} {why}", found.map_or("", |(name, _)| name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAN: &str = r#"{"_class_name": "UniPCMultistepScheduler", "_diffusers_version": "0.33.0.dev0", "beta_end": 0.02,
        "disable_corrector": [], "final_sigmas_type": "zero", "flow_shift": 3.0, "lower_order_final": true,
        "num_train_timesteps": 1000, "predict_x0": true, "prediction_type": "flow_prediction", "solver_order": 2,
        "solver_p": null, "solver_type": "bh2", "thresholding": false, "timestep_spacing": "linspace",
        "trained_betas": null, "use_beta_sigmas": false, "use_exponential_sigmas": false, "use_flow_sigmas": true,
        "use_karras_sigmas": false}"#;

    fn read(json: &str) -> Result<SchedulerConfig, ModelError> {
        SchedulerConfig::from_json(Path::new("scheduler_config.json"), json)
    }

    #[test]
    fn both_classes() {
        assert_eq!(read(WAN).unwrap(), SchedulerConfig { flow_shift: Some(3.0), ..SchedulerConfig::default() });
        let euler = read(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 8, "flow_shift": 2}"#).unwrap();
        assert_eq!((euler.class, euler.flow_shift, euler.solver_order), (SchedulerClass::FlowMatchEuler, Some(8.0), 1));
    }

    #[test]
    fn a_shift_may_be_left_open() {
        let open = read(&WAN.replace("3.0,", "null,")).unwrap();
        assert_eq!((open.flow_shift, open.in_words().as_str()), (None, "UniPC, shift left open"));
    }

    #[test]
    fn unsupported_options_are_refused() {
        let cases = [
            ("UniPCMultistep", "DDIM", "DDIMScheduler"),
            ("flow_prediction", "epsilon", "prediction_type"),
            (r#""use_flow_sigmas": true"#, r#""use_flow_sigmas": false"#, "use_flow_sigmas"),
            (r#""use_karras_sigmas": false"#, r#""use_karras_sigmas": true"#, "use_karras_sigmas"),
            ("bh2", "bh1", "bh2"),
            (r#""solver_order": 2"#, r#""solver_order": 3"#, "solver_order"),
            (r#""flow_shift": 3.0"#, r#""flow_shift": 0"#, "shift is 0"),
            (r#""num_train_timesteps": 1000"#, r#""num_train_timesteps": 0"#, "num_train_timesteps"),
            (r#""disable_corrector": []"#, r#""disable_corrector": [0]"#, "disable_corrector"),
            (r#""lower_order_final": true"#, r#""lower_order_final": false"#, "lower_order_final"),
        ];
        for (from, to, expected) in cases {
            assert!(WAN.contains(from), "{from}");
            let problem = read(&WAN.replace(from, to)).unwrap_err().to_string();
            assert!(problem.contains(expected), "{to}: {problem}");
        }
    }
}
