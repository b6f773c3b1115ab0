// The Generation service: prompts x plans through the worker's own batch, streamed as they finish.
#pragma once

#include <string>

#include "plumbline/v1/generation.grpc.pb.h"
#include "services/worker/calibration_source.h"
#include "services/worker/engine_runner.h"
#include "services/worker/model_catalog.h"

namespace plumbline {

class GenerationService final : public v1::Generation::Service {
 public:
  // None owned. numerics: what ListModels answers.
  GenerationService(const ModelCatalog* catalog, EngineRunner* runner,
                    CalibrationSource* calibrations, v1::NumericsClass numerics, int max_active)
      : catalog_(catalog),
        runner_(runner),
        calibrations_(calibrations),
        numerics_(std::move(numerics)),
        max_active_(max_active) {}

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status ListModels(grpc::ServerContext* context, const v1::ListModelsRequest* request,
                          v1::ListModelsResponse* response) override;

 private:
  const ModelCatalog* const catalog_;
  EngineRunner* const runner_;
  CalibrationSource* const calibrations_;
  const v1::NumericsClass numerics_;
  const int max_active_;
};

}  // namespace plumbline
