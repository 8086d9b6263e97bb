//! Many steps, one after another and side by side, must cost as much each as few.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::{Findings, Scene};
use crate::{load::Load, order::Ending, skald::AWAITED};

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Numbers of steps, each of which is measured
    #[arg(long, value_delimiter = ',', default_value = "5,10,25,50")]
    steps: Vec<usize>,
    #[arg(long, default_value_t = 16)]
    clients: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Each after the one before.
    Chain,
    /// All but the first and the last side by side.
    Wide,
}

impl Options {
    pub fn little() -> Self {
        Self { steps: vec![8], clients: 2, seconds: 0.3 }
    }
}

pub async fn run(options: &Options, scene: &mut Scene<'_>, findings: &mut Findings) -> Result<()> {
    for shape in [Shape::Chain, Shape::Wide] {
        for &steps in &options.steps {
            let definition = definition(shape, steps);
            let skald = scene.world.skald(scene.database);
            skald.register(&definition).await?;
            let name = definition["name"].as_str().expect("the definition has a name");
            let start = skald.starts(name, AWAITED, &json!({}), Ending::DONE)?;
            let asked = skald.asked_for(&start)?;
            let load = Load::completing(options.clients, Duration::from_secs_f64(options.seconds));
            let row = scene.measure_asked(&asked, load).await?;
            let what = name.trim_start_matches("bench-").replace('-', "_");
            findings.note_row(&what, &row);
            findings.note(format!("{what}_cpu_us_per_step"), row.per_checkout.cpu_us() / steps as f64);
        }
    }
    Ok(())
}

fn definition(shape: Shape, steps: usize) -> Value {
    let step = |number: usize| {
        let call = |path: String| json!({"service": "catalog", "method": "POST", "path": path, "body": {}});
        let needs: Vec<String> = match shape {
            Shape::Chain => (number.saturating_sub(1)..number).map(id).collect(),
            Shape::Wide if number == 0 => Vec::new(),
            Shape::Wide if number == steps - 1 => (1..number).map(id).collect(),
            Shape::Wide => vec![id(0)],
        };
        json!({
            "id": id(number),
            "needs": needs,
            "call": call(format!("/steps/{number}")),
            "compensate": {"call": call(format!("/steps/{number}/undo"))},
        })
    };
    json!({
        "apiVersion": "skald/v1",
        "name": format!("bench-{shape:?}-{steps}").to_lowercase(),
        "version": 1,
        "deadline": "10m",
        "steps": (0..steps).map(step).collect::<Vec<_>>(),
    })
}

fn id(number: usize) -> String {
    format!("step_{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_one_begins_and_ends_with_a_single_step() {
        let definition = definition(Shape::Wide, 4);
        let needs = |step: usize| definition["steps"][step]["needs"].clone();
        assert_eq!((needs(0), needs(1), needs(2)), (json!([]), json!(["step_0"]), json!(["step_0"])));
        assert_eq!(needs(3), json!(["step_1", "step_2"]));
    }
}
