#include "services/quantsim/attention_error.h"

#include <algorithm>
#include <cmath>

#include "kernels/row_ops.h"
#include "services/common/parallel.h"
#include "services/quantsim/tensor_error.h"

namespace plumbline {
namespace {

constexpr int64_t kLanes = 16;      // keys whose scores are summed side by side
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

// One form of a prompt's keys and values, laid out for Scores and Output.
struct Form {
  std::vector<float> columns;  // Transposed(keys)
  const float* values = nullptr;
};

class HeadComparison {
 public:
  HeadComparison(const AttentionShape& shape, const std::vector<float>& queries,
                 const std::vector<Form>& forms, int32_t head)
      : dim_(shape.head_dim),
        query_stride_(int64_t{shape.heads} * dim_),
        stride_(int64_t{shape.kv_heads} * dim_),
        tokens_(static_cast<int64_t>(queries.size()) / query_stride_),
        padded_(Padded(tokens_)),
        channel_(int64_t{head} / (shape.heads / shape.kv_heads) * dim_),
        queries_(queries.data() + int64_t{head} * dim_),
        forms_(forms),
        scores_(static_cast<size_t>(padded_)),
        output_(static_cast<size_t>(dim_)),
        exact_scores_(static_cast<size_t>(kQueryTile * padded_)),
        exact_outputs_(static_cast<size_t>(kQueryTile * dim_)) {}

  // forms[0] is exact; the answer has one entry for each of the others.
  std::vector<AttentionError> Run() {
    std::vector<AttentionError> errors(forms_.size() - 1);
    for (int64_t from = 0; from < tokens_; from += kQueryTile) {
      const int64_t to = std::min(from + kQueryTile, tokens_);
      for (int64_t t = from; t < to; ++t) {
        double* scores = exact_scores_.data() + (t - from) * padded_;
        Scores(forms_[0], t, scores);
        Output(forms_[0], scores, t + 1, exact_outputs_.data() + (t - from) * dim_);
      }
      for (size_t f = 1; f < forms_.size(); ++f) {
        for (int64_t t = from; t < to; ++t) CompareQuery(forms_[f], t, t - from, &errors[f - 1]);
      }
    }
    return errors;
  }

 private:
  // Of query t against keys [0, t]; each sum runs over the channels in order. Up to the next
  // multiple of kLanes scores of later keys, or zeros, are written too.
  void Scores(const Form& form, int64_t t, double* scores) const {
    const double scale = 1 / std::sqrt(static_cast<double>(dim_));
    const float* query = queries_ + t * query_stride_;
    const float* columns = form.columns.data() + channel_ * padded_;
    for (int64_t s = 0; s <= t; s += kLanes) {
      double sums[kLanes] = {};
      for (int32_t d = 0; d < dim_; ++d) {
        const double value = query[d];
        const float* keys = columns + d * padded_ + s;
        for (int64_t i = 0; i < kLanes; ++i) sums[i] += value * static_cast<double>(keys[i]);
      }
      for (int64_t i = 0; i < kLanes; ++i) scores[s + i] = sums[i] * scale;
    }
  }

  // softmax(scores[0, count)) times the value rows.
  void Output(const Form& form, const double* scores, int64_t count, double* out) const {
    const double most = *std::max_element(scores, scores + count);
    double total = 0;
    std::fill(out, out + dim_, 0.0);
    for (int64_t s = 0; s < count; ++s) {
      const double weight = std::exp(scores[s] - most);
      const float* row = form.values + s * stride_ + channel_;
      total += weight;
      for (int32_t d = 0; d < dim_; ++d) out[d] += weight * static_cast<double>(row[d]);
    }
    for (int32_t d = 0; d < dim_; ++d) out[d] /= total;
  }

  void CompareQuery(const Form& form, int64_t t, int64_t in_tile, AttentionError* error) {
    Scores(form, t, scores_.data());
    Output(form, scores_.data(), t + 1, output_.data());
    Compare(exact_scores_.data() + in_tile * padded_, scores_.data(), t + 1, &error->score_error,
            &error->score_energy);
    Compare(exact_outputs_.data() + in_tile * dim_, output_.data(), dim_, &error->output_error,
            &error->output_energy);
  }

  static void Compare(const double* exact, const double* stored, int64_t count, double* error,
                      double* energy) {
    for (int64_t i = 0; i < count; ++i) {
      *error += (stored[i] - exact[i]) * (stored[i] - exact[i]);
      *energy += exact[i] * exact[i];
    }
  }

  const int32_t dim_;
  const int64_t query_stride_, stride_;
  const int64_t tokens_, padded_;
  const int64_t channel_;  // of the head's keys and values within a row
  const float* const queries_;
  const std::vector<Form>& forms_;
  std::vector<double> scores_, output_;
  std::vector<double> exact_scores_;   // [kQueryTile, padded tokens]
  std::vector<double> exact_outputs_;  // [kQueryTile, head_dim]
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
      forms[f] = {Transposed(*rows[f].keys, width), rows[f].values->data()};
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
