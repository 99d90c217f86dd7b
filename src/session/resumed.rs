//! A job that goes on from checkpoints in an object store: its data stays divided as it was when the job began. The store has
//! to be asked before the query is planned, for planning does not wait. (A folder of this machine is read while planning.)

use datafusion::common::Result;
use datafusion::execution::session_state::SessionState;

use crate::checkpoint::CheckpointStore;
use crate::config::StreamlinesOptions;
use crate::store::{Remote, is_url};

/// The state to plan a query with.
///
/// # Errors
/// A store that cannot be read, or that the session does not know.
pub(super) async fn divided_as_before(mut state: SessionState) -> Result<SessionState> {
    let options = state.config_options().extensions.get::<StreamlinesOptions>();
    let Some(options) = options.filter(|options| is_url(&options.checkpoint_dir) && options.divided_for == 0) else {
        return Ok(state);
    };
    let folder = Remote::find(&options.checkpoint_dir, state.runtime_env(), state.config())?;
    if let Some(workers) = CheckpointStore::divided_for_in(&folder).await? {
        let options = state.config_mut().options_mut().extensions.get_mut::<StreamlinesOptions>();
        options.into_iter().for_each(|options| options.divided_for = workers);
    }
    Ok(state)
}
