#include "services/coordinator/judge_client.h"

#include <thread>

#include "absl/strings/str_cat.h"
#include "plumbline/v1/judge.grpc.pb.h"
#include "services/common/status_macros.h"
#include "services/coordinator/peer_status.h"
#include "services/rpc/client.h"

namespace plumbline {
namespace {

class GrpcJudgeClient final : public JudgeClient {
 public:
  explicit GrpcJudgeClient(std::unique_ptr<RpcClient<v1::RefusalJudge>> client)
      : client_(std::move(client)) {}

  absl::StatusOr<std::vector<v1::Verdict>> Judge(
      const std::vector<v1::JudgeRequest>& requests) override {
    grpc::ClientContext context;
    client_->Prepare(&context);
    auto stream = client_->stub().Judge(&context);
    // Writing and reading at once: a batch larger than the stream's window would block otherwise.
    std::thread writer([&] {
      for (const v1::JudgeRequest& request : requests) {
        if (!stream->Write(request)) break;
      }
      stream->WritesDone();
    });
    std::vector<v1::Verdict> verdicts;
    absl::Status mismatch;
    v1::JudgeResponse response;
    while (stream->Read(&response)) {
      if (verdicts.size() >= requests.size() || response.key() != requests[verdicts.size()].key()) {
        mismatch = absl::InternalError(absl::StrCat(client_->address(), ": answer ",
                                                    verdicts.size(), " has the key '",
                                                    response.key(), "' of another request"));
        context.TryCancel();
        break;
      }
      verdicts.push_back(response.verdict());
    }
    writer.join();
    const grpc::Status status = stream->Finish();
    if (!mismatch.ok()) return PeerStatus("judge", mismatch);
    if (!status.ok()) {
      return PeerStatus("judge", Annotate(FromGrpcStatus(status), client_->address()));
    }
    if (verdicts.size() != requests.size()) {
      return PeerStatus("judge", absl::UnavailableError(
                                     absl::StrCat(client_->address(), ": ", verdicts.size(),
                                                  " answers to ", requests.size(), " requests")));
    }
    return verdicts;
  }

  absl::StatusOr<std::vector<v1::JudgeCard>> ListJudges() override {
    const auto response =
        client_->Call(&v1::RefusalJudge::Stub::ListJudges, v1::ListJudgesRequest());
    if (!response.ok()) return PeerStatus("judge", response.status());
    return std::vector<v1::JudgeCard>(response->judges().begin(), response->judges().end());
  }

 private:
  const std::unique_ptr<RpcClient<v1::RefusalJudge>> client_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<JudgeClient>> MakeJudgeClient(const v1::Endpoint& endpoint) {
  auto client = RpcClient<v1::RefusalJudge>::Create(endpoint);
  if (!client.ok()) return Annotate(client.status(), "judge");
  return std::make_unique<GrpcJudgeClient>(*std::move(client));
}

}  // namespace plumbline
