#include "services/quantsim/attention_error.h"

#include <algorithm>
#include <cmath>

#include "kernels/matmul_double.h"
#include "kernels/row_ops.h"
#include "services/common/parallel.h"
#include "services/quantsim/tensor_error.h"

namespace plumbline {
namespace {

constexpr int64_t kLanes = 8;          // keys are padded to a multiple
constexpr int64_t kQueriesAtOnce = 4;  // read a form's rows together
constexpr int64_t kQueryTile = 16;  // queries that meet a form of the keys while it is in the cache

int64_t Padded(int64_t tokens) { return (tokens + kLanes - 1) / kLanes * kLanes; }

// Keys as [kv_heads, head_dim, padded tokens], so that neighbouring keys stand side by side.
std::vector<float> Transposed(const std::vector<float>& rows, int64_t width) {
  const int64_t tokens = static_cast<int64_t>(rows.size()) / width;
  const int64_t padded = Padded(tokens);
  std::vector<float> columns(static_cast<size_t>(width * padded));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < width; ++c) {
      columns[static_cast<size_t>(c * padded + t)] = rows[static_cast<size_t>(t * width + c)];
    }
  }
  return columns;
}

// Values as [kv_heads, tokens, head_dim]: a head's rows a whole width apart would all fall on the
// same places of the processor's cache.
std::vector<float> ByHead(const std::vector<float>& rows, int64_t width, int64_t head_dim) {
  const int64_t tokens = static_cast<int64_t>(rows.size()) / width;
  std::vector<float> heads(rows.size());
  float* to = heads.data();
  for (int64_t channel = 0; channel < width; channel += head_dim) {
    for (int64_t t = 0; t < tokens; ++t) {
      to = std::copy_n(rows.data() + t * width + channel, head_dim, to);
    }
  }
  return heads;
}

// One form of a prompt's keys and values, laid out for Attend.
struct Form {
  std::vector<float> columns;  // Transposed(keys)
  std::vector<float> values;   // ByHead(values)
};

class HeadComparison {
 public:
  HeadComparison(const AttentionShape& shape, const std::vector<float>& queries,
                 const std::vector<Form>& forms, int32_t head)
      : dim_(shape.head_dim),
        query_stride_(int64_t{shape.heads} * dim_),
        tokens_(static_cast<int64_t>(queries.size()) / query_stride_),
        padded_(Padded(tokens_)),
        channel_(int64_t{head} / (shape.heads / shape.kv_heads) * dim_),
        queries_(queries.data() + int64_t{head} * dim_),
        forms_(forms),
        wide_queries_(static_cast<size_t>(kQueryTile * dim_)),
        weights_(static_cast<size_t>(kQueriesAtOnce * padded_)),
        scores_(weights_.size()),
        outputs_(static_cast<size_t>(kQueriesAtOnce * dim_)),
        exact_scores_(static_cast<size_t>(kQueryTile * padded_)),
        exact_outputs_(static_cast<size_t>(kQueryTile * dim_)) {}

  // forms[0] is exact; the answer has one entry for each of the others.
  std::vector<AttentionError> Run() {
    std::vector<AttentionError> errors(forms_.size() - 1);
    for (int64_t from = 0; from < tokens_; from += kQueryTile) {
      const int64_t to = std::min(from + kQueryTile, tokens_);
      for (int64_t t = from; t < to; ++t) {
        const float* query = queries_ + t * query_stride_;
        std::copy(query, query + dim_, wide_queries_.data() + (t - from) * dim_);
      }
      for (int64_t t = from; t < to; t += kQueriesAtOnce) {
        const QueryGroup group = {t, std::min(kQueriesAtOnce, to - t), t - from};
        Attend(forms_[0], group, exact_scores_.data() + group.in_tile * padded_,
               exact_outputs_.data() + group.in_tile * dim_);
      }
      for (size_t f = 1; f < forms_.size(); ++f) {
        for (int64_t t = from; t < to; t += kQueriesAtOnce) {
          CompareQueries(forms_[f], {t, std::min(kQueriesAtOnce, to - t), t - from},
                         &errors[f - 1]);
        }
      }
    }
    return errors;
  }

 private:
  struct QueryGroup {
    int64_t first, count;
    int64_t in_tile;  // place of the first
  };

  void CompareQueries(const Form& form, const QueryGroup& group, AttentionError* error) {
    Attend(form, group, scores_.data(), outputs_.data());
    for (int64_t i = 0; i < group.count; ++i) {
      Compare(exact_scores_.data() + (group.in_tile + i) * padded_, scores_.data() + i * padded_,
              group.first + i + 1, &error->score_error, &error->score_energy);
      Compare(exact_outputs_.data() + (group.in_tile + i) * dim_, outputs_.data() + i * dim_, dim_,
              &error->output_error, &error->output_energy);
    }
  }

  // Each query of the group against the keys up to its own. scores: [count, padded_], those of
  // later keys without meaning; outputs: [count, dim_], softmax(scores) times the value rows.
  void Attend(const Form& form, const QueryGroup& group, double* scores, double* outputs) {
    const auto [t, count, in_tile] = group;
    const double scale = 1 / std::sqrt(static_cast<double>(dim_));
    const float* values = form.values.data() + channel_ * tokens_;
    std::fill(scores, scores + count * padded_, 0.0);
    kernels::AccumulateDouble(wide_queries_.data() + in_tile * dim_, dim_, count,
                              form.columns.data() + channel_ * padded_, padded_, dim_,
                              Padded(t + count), scores, padded_);
    double totals[kQueriesAtOnce];
    for (int64_t i = 0; i < count; ++i) {
      double* row = scores + i * padded_;
      for (int64_t s = 0; s <= t + i; ++s) row[s] *= scale;
      totals[i] = Exponentials(row, t + i + 1, weights_.data() + i * padded_);
    }
    std::fill(outputs, outputs + count * dim_, 0.0);
    kernels::AccumulateDouble(weights_.data(), padded_, count, values, dim_, t + 1, dim_, outputs,
                              dim_);
    for (int64_t i = 0; i < count; ++i) {
      double* out = outputs + i * dim_;
      kernels::AccumulateDouble(weights_.data() + i * padded_ + t + 1, padded_, 1,
                                values + (t + 1) * dim_, dim_, i, dim_, out, dim_);
      for (int32_t d = 0; d < dim_; ++d) out[d] /= totals[i];
    }
  }

  // exp(score - the largest score) of each; returns their sum.
  static double Exponentials(const double* scores, int64_t count, double* weights) {
    const double most = *std::max_element(scores, scores + count);
    double total = 0;
    for (int64_t s = 0; s < count; ++s) {
      weights[s] = std::exp(scores[s] - most);
      total += weights[s];
    }
    return total;
  }

  static void Compare(const double* exact, const double* stored, int64_t count, double* error,
                      double* energy) {
    for (int64_t i = 0; i < count; ++i) {
      *error += (stored[i] - exact[i]) * (stored[i] - exact[i]);
      *energy += exact[i] * exact[i];
    }
  }

  const int32_t dim_;
  const int64_t query_stride_;
  const int64_t tokens_, padded_;
  const int64_t channel_;  // of the head's keys and values within a row
  const float* const queries_;
  const std::vector<Form>& forms_;
  std::vector<double> wide_queries_;      // [kQueryTile, head_dim]
  std::vector<double> weights_, scores_;  // [kQueriesAtOnce, padded tokens]
  std::vector<double> outputs_;           // [kQueriesAtOnce, head_dim]
  std::vector<double> exact_scores_;      // [kQueryTile, padded tokens]
  std::vector<double> exact_outputs_;     // [kQueryTile, head_dim]
};

}  // namespace

void RotateRows(const std::vector<double>& inverse_frequency, int32_t heads, int32_t head_dim,
                std::vector<float>* rows) {
  if (inverse_frequency.empty()) return;
  const int64_t width = int64_t{heads} * head_dim;
  const auto tokens = static_cast<int64_t>(rows->size()) / width;
  std::vector<float> cosines(inverse_frequency.size()), sines(inverse_frequency.size());
  for (int64_t t = 0; t < tokens; ++t) {
    for (size_t i = 0; i < inverse_frequency.size(); ++i) {
      // Single precision, as the engine's table: later positions are then the same angles.
      const float angle = static_cast<float>(t) * static_cast<float>(inverse_frequency[i]);
      cosines[i] = static_cast<float>(std::cos(double{angle}));
      sines[i] = static_cast<float>(std::sin(double{angle}));
    }
    float* row = rows->data() + t * width;
    kernels::RotateF32(row, heads, head_dim, cosines.data(), sines.data(), row);
  }
}

void AttentionError::Add(const AttentionError& other) {
  score_error += other.score_error;
  score_energy += other.score_energy;
  output_error += other.output_error;
  output_energy += other.output_energy;
}

double AttentionError::score_relative_mse() const {
  return RelativeError(score_error, score_energy);
}
double AttentionError::output_relative_mse() const {
  return RelativeError(output_error, output_energy);
}

std::vector<AttentionError> AttentionErrors(const AttentionShape& shape,
                                            const std::vector<float>& queries,
                                            const AttendedRows& exact,
                                            const std::vector<AttendedRows>& stored) {
  std::vector<AttendedRows> rows = {exact};
  rows.insert(rows.end(), stored.begin(), stored.end());
  std::vector<Form> forms(rows.size());
  const int64_t width = int64_t{shape.kv_heads} * shape.head_dim;
  ParallelFor(static_cast<int64_t>(forms.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto f = static_cast<size_t>(i);
      forms[f] = {Transposed(*rows[f].keys, width), ByHead(*rows[f].values, width, shape.head_dim)};
    }
  });
  std::vector<std::vector<AttentionError>> by_head(static_cast<size_t>(shape.heads));
  ParallelFor(shape.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      by_head[static_cast<size_t>(head)] =
          HeadComparison(shape, queries, forms, static_cast<int32_t>(head)).Run();
    }
  });
  std::vector<AttentionError> errors(stored.size());
  for (const std::vector<AttentionError>& head : by_head) {
    for (size_t f = 0; f < errors.size(); ++f) errors[f].Add(head[f]);
  }
  return errors;
}

}  // namespace plumbline
