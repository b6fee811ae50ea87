//! Upgraded connections (WebSocket and kin): bytes both ways until one side ends, or nobody says anything for too long.

use std::io;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::http::Record;

const BUFFER_BYTES: usize = 8 * 1024;

/// Joins the two sides in a task of its own; the record is written when they part.
pub(super) fn start(client: OnUpgrade, upstream: OnUpgrade, idle: Duration, record: Record) {
    tokio::spawn(async move {
        let _record = record;
        // Fails when a side goes away before the 101 is through: then there is nothing to join.
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
        join(client, upstream, idle).await;
    });
}

async fn join(client: Upgraded, upstream: Upgraded, idle: Duration) {
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_upstream, to_upstream) = tokio::io::split(TokioIo::new(upstream));
    let (said, mut heard) = watch::channel(());
    let both = async { tokio::try_join!(copy(from_client, to_upstream, &said), copy(from_upstream, to_client, &said)) };
    let silence = async { while matches!(timeout(idle, heard.changed()).await, Ok(Ok(()))) {} };
    tokio::select! {
        ended = both => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an upgraded connection broke off");
            }
        }
        () = silence => tracing::debug!("an upgraded connection was silent for too long"),
    }
}

/// Copies until the end of `from`.
///
/// # Errors
/// `from` is broken, so that the other direction has nothing to wait for either.
async fn copy(
    mut from: ReadHalf<TokioIo<Upgraded>>,
    mut to: WriteHalf<TokioIo<Upgraded>>,
    said: &watch::Sender<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        let written = if count == 0 { to.shutdown().await } else { to.write_all(&buffer[..count]).await };
        if let Err(error) = written {
            // What that side has sent before it broke may still be unread: the other direction finds the end.
            tracing::debug!(%error, "cannot write to one side of an upgraded connection");
            return Ok(());
        }
        if count == 0 {
            return Ok(());
        }
        said.send_replace(());
    }
}
