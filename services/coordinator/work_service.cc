#include "services/coordinator/work_service.h"

#include "services/rpc/status.h"

namespace plumbline {

grpc::Status WorkService::Sync(grpc::ServerContext* context, const v1::SyncRequest* request,
                               v1::SyncResponse* response) {
  auto answer = manager_->Sync(*request);
  if (!answer.ok()) return ToGrpcStatus(answer.status());
  *response = *std::move(answer);
  return grpc::Status::OK;
}

grpc::Status WorkService::Report(grpc::ServerContext* context, const v1::ReportRequest* request,
                                 v1::ReportResponse* response) {
  auto answer = manager_->Report(*request);
  if (!answer.ok()) return ToGrpcStatus(answer.status());
  *response = *std::move(answer);
  return grpc::Status::OK;
}

}  // namespace plumbline
