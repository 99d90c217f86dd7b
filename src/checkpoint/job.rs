//! What checkpoints are of: a job goes on only from its own.

use datafusion::common::Result;
use serde_json::{Value, json};

use crate::error::Error;

/// What has to be the same for a job to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Of this program: what operators save may differ between versions.
    pub(crate) version: String,
    /// The plan that every pipeline runs, line by line.
    pub(crate) plan: Vec<String>,
    /// How many pipelines there are, and how they get their rows.
    pub(crate) pipelines: String,
    /// For how many workers the data is divided. However many there are when the job goes on, it stays so.
    pub(crate) divided_for: usize,
    /// What is read: the files with their sizes and times, the columns, and how they are read.
    pub(crate) source: Vec<String>,
    /// Where the rows go.
    pub(crate) output: String,
}

impl Fingerprint {
    /// Of a job with the pipelines of several streams, whose rows go to `output`.
    pub(crate) fn of_all(streams: impl Iterator<Item = Self>, output: String) -> Self {
        let all = streams.reduce(|mut all, next| {
            all.plan.extend(next.plan);
            all.pipelines = format!("{}; {}", all.pipelines, next.pipelines);
            all.source.extend(next.source);
            all
        });
        let none = || Self {
            version: String::new(),
            plan: vec![],
            pipelines: String::new(),
            divided_for: 0,
            source: vec![],
            output: String::new(),
        };
        Self { output, ..all.unwrap_or_else(none) }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { version, plan, pipelines, divided_for, source, output } = self;
        let value = json!({
            "version": version, "plan": plan, "pipelines": pipelines, "divided_for": divided_for, "source": source,
            "output": output,
        });
        format!("{value:#}\n").into_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> std::result::Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let text = |name: &str| value[name].as_str().map(str::to_string).ok_or_else(|| format!("it has no {name}"));
        let lines = |name: &str| {
            let lines = value[name].as_array().ok_or_else(|| format!("it has no {name}"))?.iter();
            Ok::<_, String>(lines.filter_map(|line| line.as_str().map(str::to_string)).collect())
        };
        Ok(Self {
            version: text("version")?,
            plan: lines("plan")?,
            pipelines: text("pipelines")?,
            divided_for: value["divided_for"].as_u64().ok_or("it has no divided_for")? as usize,
            source: lines("source")?,
            output: text("output")?,
        })
    }

    /// Whether this job can go on from the checkpoints of `saved`, which are in `folder`.
    ///
    /// # Errors
    /// What differs.
    pub(super) fn check(&self, saved: &Self, folder: &str) -> Result<()> {
        let differing = |what: &str, now: &[String], then: &[String]| {
            let (index, now) = now
                .iter()
                .enumerate()
                .find(|(index, line)| then.get(*index) != Some(*line))
                .map_or((now.len(), "nothing more"), |(index, line)| (index, line.trim()));
            let then = then.get(index).map_or("nothing more", |line| line.trim());
            (now != then).then(|| format!("{what} then: {then}; now: {now}"))
        };
        let one = |text: &String| vec![text.clone()];
        let found = differing("version", &one(&self.version), &one(&saved.version))
            .or_else(|| differing("source", &self.source, &saved.source))
            .or_else(|| differing("pipelines", &one(&self.pipelines), &one(&saved.pipelines)))
            .or_else(|| differing("plan", &self.plan, &saved.plan))
            .or_else(|| differing("output", &one(&self.output), &one(&saved.output)));
        match found {
            None => Ok(()),
            Some(what) => Err(Error::data(format!("holds checkpoints of another job ({what})"))
                .in_file(folder)
                .help("name another folder for this job, or run the job that they are of")
                .into()),
        }
    }
}
