//! `ditscope inspect`.

use std::path::PathBuf;

use crate::model::wan::files::{ModelFiles, ModelSummary};

/// Arguments of `ditscope inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model's folder
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints what a model folder holds.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let summary = ModelSummary::new(&ModelFiles::find(&args.model)?);
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("{summary}");
    }
    Ok(())
}
