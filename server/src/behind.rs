//! Is the head where the log of pushed rows is?

use std::collections::BTreeMap;

use quern_engine::ViewId;
use quern_features::Compiled;
use quern_store::log::{Log, Position};
use quern_store::online::Online;
use quern_store::rocks::{Applied, Commit};
use quern_store::turns::Order;

use crate::error::Result;

/// The sources of which the head is not where the log is, as it is here and as it is there.
pub(crate) fn late(
    head: &Online,
    lasts: &BTreeMap<String, Position>,
) -> Result<Vec<(String, Position, Position)>> {
    let sources: Vec<&str> = lasts.keys().map(String::as_str).collect();
    let applied = head.applied(&sources)?;
    let both = lasts.iter().zip(applied).filter(|((_, last), applied)| *last != applied);
    Ok(both.map(|((source, last), applied)| (source.clone(), applied, *last)).collect())
}

/// Goes on without what the log has lost: the views of such sources are dropped, to be made anew from what is left.
pub(crate) fn accept_loss(log: &Log, head: &Online, order: &Order<'_>, live: &Compiled) -> Result<()> {
    for (source, applied, last) in late(head, &order.lasts)? {
        if !log.went_through(&source, applied)? {
            let views: Vec<ViewId> = live.views_of(&source).map(|view| view.id).collect();
            tracing::warn!(
                source,
                online = applied.number,
                log = last.number,
                "commits that the log has lost are given up"
            );
            head.drop_views(&views)?;
            let applied = vec![Applied { source: source.clone(), from: applied, to: last }];
            head.commit(&Commit { applied, ..Commit::default() })?;
        }
    }
    Ok(())
}
