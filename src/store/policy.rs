//! How object stores are used: how long they are waited for, and in how large parts they get files.

use std::time::Duration;

use datafusion::prelude::SessionConfig;

use crate::config::StreamlinesOptions;
use crate::error::Error;

/// How often an operation is tried, how long one may take, and when a lease has run out. A session has another policy than
/// the usual by an extension of its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// How often an operation is tried.
    pub(crate) attempts: u32,
    /// How long one attempt may take.
    pub(crate) attempt: Duration,
    /// How long is waited before the second one; twice as long before each that follows.
    pub(crate) first_wait: Duration,
    /// The longest of these waits.
    pub(crate) longest_wait: Duration,
    /// How long a run that gives no sign of life holds its checkpoints.
    pub(crate) lease: Duration,
    /// Bytes of a part of a file. Most stores want at least five megabytes, and some all parts but the last of one size.
    pub(crate) part_bytes: usize,
}

impl Default for Policy {
    /// A minute for an attempt, and eight of them within about a quarter of a minute where each fails at once.
    fn default() -> Self {
        Self {
            attempts: 8,
            attempt: Duration::from_secs(60),
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(5),
            lease: Duration::from_secs(30),
            part_bytes: 8 * 1024 * 1024,
        }
    }
}

impl Policy {
    /// That of a session.
    ///
    /// # Errors
    /// A setting that is no length of time.
    pub(super) fn of(config: &SessionConfig) -> Result<Self, Error> {
        if let Some(policy) = config.get_extension::<Self>() {
            return Ok(*policy);
        }
        let options = config.options().extensions.get::<StreamlinesOptions>();
        let lease = options.map(StreamlinesOptions::lease).transpose()?;
        Ok(Self { lease: lease.unwrap_or(Self::default().lease), ..Self::default() })
    }

    /// How long is waited after so many attempts.
    pub(super) fn wait_after(&self, attempts: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
        self.first_wait.saturating_mul(doubled).min(self.longest_wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest() {
        let waits: Vec<u128> = (1..=8).map(|attempts| Policy::default().wait_after(attempts).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(Policy::default().wait_after(u32::MAX), Duration::from_secs(5));
    }

    #[test]
    fn a_session_says_how_long_a_lease_is() {
        let mut config = SessionConfig::new().with_option_extension(StreamlinesOptions::default());
        assert_eq!(Policy::of(&config).unwrap().lease, Duration::from_secs(30));
        config.options_mut().set("streamlines.checkpoint_lease", "5min").unwrap();
        assert_eq!(Policy::of(&config).unwrap().lease, Duration::from_secs(300));
        for wrong in ["soon", "0s", "100rows"] {
            assert!(config.options_mut().set("streamlines.checkpoint_lease", wrong).is_err(), "{wrong}");
        }
    }
}
