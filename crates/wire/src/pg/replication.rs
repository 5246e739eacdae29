//! The replication protocol from the client's side: frames, commands and the messages of a WAL stream.

mod command;
mod frame;
mod history;
mod reply;
mod stream;

pub use command::{
    BaseBackupOptions, base_backup, create_physical_slot, drop_slot, quote_identifier,
    quote_literal, start_physical, timeline_history,
};
pub use frame::{Frame, FrameError, LIMIT_FRAME_BYTES, next_frame, next_frame_within};
pub use history::{HistoryError, Switch, TimelineHistory};
pub use reply::{
    LIMIT_COLUMNS, ReplyError, ServerMessage, Text, columns, command_tag, row, server_message,
};
pub use stream::{StandbyStatus, StreamError, StreamMessage};
