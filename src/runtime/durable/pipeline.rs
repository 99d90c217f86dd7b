//! A pipeline at work that saves itself now and then.

use std::sync::atomic::Ordering;
use std::time::Instant;

use datafusion::common::Result;

use crate::checkpoint::Checkpoint;
use crate::operator::PartId;
use crate::runtime::chain::{Chain, Step};
use crate::runtime::work::Work;
use crate::sink::{Writer, Written};
use crate::source::Position;

use super::group::Group;
use super::queued::Input;

/// A pipeline at work.
pub(super) struct Pipeline<'a> {
    group: &'a Group,
    chain: Chain,
    output: Output,
    /// When it saved itself, and how many rows it had read then.
    saved: Instant,
    saved_rows: u64,
}

/// What it has written in this epoch.
struct Output {
    index: usize,
    epoch: u64,
    writer: Option<Box<dyn Writer>>,
    written: Written,
}

impl<'a> Pipeline<'a> {
    /// Goes on after so many epochs, and rows that have been read.
    pub(super) fn new(group: &'a Group, chain: Chain, epochs: u64, rows: u64) -> Self {
        let (index, written) = (chain.context().index, Written::default());
        let output = Output { index, epoch: epochs + 1, writer: None, written };
        chain.context().set_part(PartId { epoch: epochs + 1, run: group.store().run() });
        Self { group, chain, output, saved: Instant::now(), saved_rows: rows }
    }

    /// Runs to the end of the rows, or until it is stopped.
    pub(super) async fn run(mut self, work: &Work, mut rows: Input) -> Result<Written> {
        loop {
            match self.chain.step().await? {
                Step::Output(batch) => self.output.writer(self.group)?.write(batch).await?,
                Step::WantsInput if work.is_stopped() => break,
                Step::WantsInput => {
                    if self.has_news()
                        && self.group.interval().is_over(self.saved.elapsed(), self.rows_read() - self.saved_rows)
                    {
                        self.save(rows.position()).await?;
                    }
                    match rows.next().await? {
                        None if work.is_stopped() => {}
                        read => self.chain.push(read),
                    }
                }
                Step::Ended => break,
            }
        }
        self.save(rows.position()).await?;
        Ok(self.output.written)
    }

    /// Whether there is anything to save since the last time.
    fn has_news(&self) -> bool {
        self.rows_read() > self.saved_rows || self.output.writer.is_some()
    }

    fn rows_read(&self) -> u64 {
        self.chain.context().metrics.rows_in.load(Ordering::Relaxed)
    }

    /// Ends the epoch.
    async fn save(&mut self, position: Position) -> Result<()> {
        let (group, index) = (self.group, self.output.index);
        group.store().check_held()?;
        let files = self.output.close().await?;
        let late_files = group.stage_late_rows(index).await?;
        let begun = Instant::now();
        let counts = self.chain.context().metrics.checkpoint();
        let operators = if counts.has_ended { self.chain.saved_at_end() } else { self.chain.save().await? };
        let epoch = self.output.epoch;
        let checkpoint = Checkpoint { epoch, files, late_files, operators, position, ..counts };
        let bytes = group.store().put(group.first() + index, &checkpoint).await?;
        self.chain.context().mergers.iter().flatten().for_each(|merger| merger.lock().saved(index, epoch));
        group.publish(&checkpoint).await?;
        self.chain.context().metrics.saved(bytes, begun.elapsed());
        self.output.epoch += 1;
        self.chain.context().set_part(PartId { epoch: self.output.epoch, run: group.store().run() });
        (self.saved, self.saved_rows) = (Instant::now(), checkpoint.rows_read);
        Ok(())
    }
}

impl Output {
    /// The writer of this epoch's files, which begins with the first rows.
    fn writer(&mut self, group: &Group) -> Result<&mut dyn Writer> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => group.writer(self.index, self.epoch)?,
        };
        Ok(self.writer.insert(writer).as_mut())
    }

    /// Stages the files of this epoch, if there are any.
    async fn close(&mut self) -> Result<Vec<String>> {
        let Some(mut writer) = self.writer.take() else { return Ok(vec![]) };
        writer.finish().await?;
        let mut written = writer.close().await?;
        let files = std::mem::take(&mut written.files);
        self.written.add(written);
        Ok(files)
    }
}
