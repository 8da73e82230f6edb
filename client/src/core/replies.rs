//! What arrives: the welcome, and the answers.

use protocol::{Certainty, Error as Refusal, ErrorCode, Frame, Response, Welcome};

use super::conn::{Phase, SentWhat};
use super::{ConnId, Core, Micros, Ticket};
use crate::Error;

impl Core {
    /// The first frame of a connection arrived.
    pub(super) fn greeted(&mut self, now: Micros, conn: ConnId, frame: Frame) {
        let welcome = match Welcome::decode(frame.header.kind, frame.body) {
            Ok(Ok(welcome)) => welcome,
            Ok(Err(refusal)) if is_final(refusal.code) => {
                return self.refused_for_good(now, conn, refusal);
            }
            Ok(Err(refusal)) => return self.close_conn(now, conn, &refusal.to_string()),
            Err(error) => return self.close_conn(now, conn, &error.to_string()),
        };
        let cluster_id = *self.cluster_id.get_or_insert(welcome.cluster_id);
        if welcome.cluster_id != cluster_id {
            let found = welcome.cluster_id;
            let why = format!("it belongs to cluster {found:032x}, not {cluster_id:032x}");
            let refusal = Refusal::not_done(ErrorCode::WrongCluster, why);
            return self.refused_for_good(now, conn, refusal);
        }
        let link = self.conn_mut(conn);
        link.phase = Phase::Ready;
        link.node = welcome.node;
        link.limits = welcome.limits;
        let endpoint = link.endpoint;
        self.endpoints.get_mut(endpoint).failures = 0;
        if let Some(leader) = welcome.leader.filter(|leader| leader.node != welcome.node) {
            self.not_leader(now, conn, Some(&leader));
        }
    }

    /// The node will never take this client. When no known node does, nobody waits any longer.
    fn refused_for_good(&mut self, now: Micros, conn: ConnId, refusal: Refusal) {
        let endpoint = self.conn(conn).endpoint;
        let why = refusal.message.clone();
        let message = format!("{}: {why}", self.endpoints.get(endpoint).addr);
        let refusal = Refusal { message, ..refusal };
        self.fail_waiting_for(endpoint, &Error::Refused(refusal.clone()));
        self.close_conn(now, conn, &why);
        self.endpoints.get_mut(endpoint).refusal = Some(refusal.clone());
        if self.endpoints.take_refusals() {
            for ticket in self.waiting.clone() {
                // The end of one call may be the end of others.
                if let Some(pending) = self.pending.get(&ticket) {
                    let error = pending.judge(refusal.clone());
                    self.finish(ticket, Err(error));
                }
            }
        }
    }

    /// A frame arrived after the handshake.
    pub(super) fn replied(&mut self, now: Micros, conn: ConnId, frame: Frame) {
        let request_id = frame.header.request_id;
        let response = match Response::decode(frame.header.kind, frame.body) {
            Ok(response) => response,
            Err(error) => return self.close_conn(now, conn, &error.to_string()),
        };
        if request_id == 0 {
            let why = if let Response::Error(refusal) = response {
                refusal.to_string()
            } else {
                "an answer without a request".to_owned()
            };
            return self.close_conn(now, conn, &why);
        }
        match self.conn_mut(conn).take_sent(request_id) {
            Some(SentWhat::Request(ticket)) => self.answered(now, conn, ticket, response),
            Some(SentWhat::Ping) => {}
            None => self.close_conn(now, conn, "an answer to no request"),
        }
    }

    /// A request was answered. Its call may have ended before.
    fn answered(&mut self, now: Micros, conn: ConnId, ticket: Ticket, response: Response) {
        if let Response::Error(refusal) = response {
            return self.refused(now, conn, ticket, refusal);
        }
        self.leader_answered(conn);
        self.finish(ticket, Ok(response));
    }

    /// A request was refused: where else, when again, or what to tell.
    fn refused(&mut self, now: Micros, conn: ConnId, ticket: Ticket, refusal: Refusal) {
        let elsewhere = self.take_direction(now, conn, &refusal);
        let Some(pending) = self.pending.get(&ticket) else {
            return;
        };
        let to_one_endpoint = pending.endpoint.is_some();
        let session = pending.session;
        if elsewhere && !to_one_endpoint {
            self.note_problem(conn, &refusal);
            return match refusal.certainty {
                Certainty::NotDone => self.send_again(ticket),
                Certainty::Unknown => self.retry_or(ticket, || Error::Refused(refusal)),
                Certainty::Done => self.finish(ticket, Err(Error::Refused(refusal))),
            };
        }
        let ended = matches!(refusal.code, ErrorCode::SessionUnknown | ErrorCode::SessionExpired);
        let reason = refusal.message.clone();
        let error = pending.judge(refusal);
        self.finish(ticket, Err(error));
        if let (true, Some((session, _))) = (ended, session) {
            self.lose_session(session, &reason);
        }
    }

    /// What a refusal says about the leader; answers whether the request may be tried elsewhere or
    /// later.
    fn take_direction(&mut self, now: Micros, conn: ConnId, refusal: &Refusal) -> bool {
        match (refusal.code, &refusal.leader) {
            (ErrorCode::TooManyRequests, _) => {
                self.leader_busy(now, conn, refusal.retry_after_ms);
            }
            (ErrorCode::NotLeader, hint) => self.not_leader(now, conn, hint.as_ref()),
            (code, Some(hint)) if is_elsewhere(code) => self.not_leader(now, conn, Some(hint)),
            (code, None) if is_elsewhere(code) => {
                self.leader_unavailable(now, conn, refusal.retry_after_ms);
            }
            _ => return false,
        }
        true
    }

    fn note_problem(&mut self, conn: ConnId, refusal: &Refusal) {
        let addr = &self.endpoints.get(self.conn(conn).endpoint).addr;
        self.problem = format!("{addr}: {}", refusal.message);
    }
}

/// Whether a code means that trying again is of no use.
fn is_final(code: ErrorCode) -> bool {
    let elsewhere = is_elsewhere(code) || code == ErrorCode::NotLeader;
    !elsewhere && code != ErrorCode::TooManyRequests
}

/// Whether a code means that this node cannot do it now, but another one may.
fn is_elsewhere(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Unavailable
            | ErrorCode::Timeout
            | ErrorCode::LeadershipLost
            | ErrorCode::ShuttingDown
    )
}
