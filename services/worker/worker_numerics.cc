#include "services/worker/worker_numerics.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

// Whether another model may still load where this one did not.
bool IsOfTheBundle(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsDataLoss(status) || absl::IsNotFound(status);
}

absl::Status CheckOneModel(const ModelCatalog& catalog) {
  if (catalog.entries().size() == 1) return absl::OkStatus();
  const std::string folders = absl::StrJoin(
      catalog.entries(), ", ",
      [](std::string* out, const CatalogEntry& entry) { absl::StrAppend(out, entry.dir); });
  return absl::InvalidArgumentError(absl::StrCat(
      "a worker on a GPU serves one model, model_roots hold ", catalog.entries().size(), " (",
      folders, "): name the folder of one, and start another worker for each other"));
}

}  // namespace

absl::StatusOr<v1::NumericsClass> NumericsOf(EngineRunner& runner, ModelCatalog& catalog,
                                             ComputeDtype dtype, bool on_gpu) {
  if (on_gpu) PLUMB_RETURN_IF_ERROR(CheckOneModel(catalog));
  absl::StatusOr<std::string> loaded = runner.NumericsClassOf(catalog.entries().front());
  while (!loaded.ok() && IsOfTheBundle(loaded.status())) {
    PLUMB_RETURN_IF_ERROR(catalog.LeaveOutFirst(loaded.status()));
    loaded = runner.NumericsClassOf(catalog.entries().front());
  }
  PLUMB_ASSIGN_OR_RETURN(const std::string text, std::move(loaded));
  v1::NumericsClass numerics;
  numerics.set_text(text);
  numerics.set_id(Sha256Hex(text));
  numerics.set_dtype(dtype == ComputeDtype::kBf16 ? "bf16" : "fp32");
  numerics.set_device(on_gpu ? "cuda" : "cpu");
  return numerics;
}

}  // namespace plumbline
