//! `sealkeeper.v1.Approvals`.

use tonic::{Request, Response, Status};

use super::admin::Admin;
use super::desk::timestamp;
use super::identity;
use super::status::Fault;
use crate::agent::Administration;
use crate::agent::admin::Change;
use crate::api::v1::{self, approvals_server};

#[tonic::async_trait]
impl<A: Administration> approvals_server::Approvals for Admin<A> {
    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        let caller = identity::administrator(&request)?;
        let name = request.into_inner().key_set;
        let name = Some(name.as_str()).filter(|name| !name.is_empty());
        let key_sets = self.administration.key_sets(&caller, name).await;
        let key_sets = key_sets.map_err(|error| Fault::look(error).into_status())?;
        let pending = key_sets.into_iter().flat_map(|set| {
            let key_set = set.name;
            set.requests
                .into_iter()
                .map(move |request| v1::PendingApproval {
                    key_set: key_set.clone(),
                    number: request.number,
                    wish: request.wish.to_owned(),
                    about: request.about,
                    would_sign: request.would_sign.unwrap_or_default(),
                    by: request.by,
                    person: request.person,
                    note: request.note,
                    since: Some(timestamp(request.at)),
                    expires: Some(timestamp(request.expires)),
                })
        });
        Ok(Response::new(v1::ListApprovalsResponse {
            pending: pending.collect(),
        }))
    }

    async fn approve(
        &self,
        request: Request<v1::ApproveRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |v1::ApproveRequest { order, number }| {
            Ok((order, Change::Approve { request: number }))
        })
        .await
    }

    async fn withdraw(
        &self,
        request: Request<v1::WithdrawRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |v1::WithdrawRequest { order, number }| {
            Ok((order, Change::Withdraw { request: number }))
        })
        .await
    }
}
