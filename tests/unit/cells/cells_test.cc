#include "services/cells/cells.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <cmath>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/quant/plan_parser.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using ::testing::HasSubstr;
using testing::StatusIs;

v1::CellSpec FullSpec() {
  v1::CellSpec spec;
  spec.set_kind(v1::CELL_KIND_GENERATE);
  spec.set_model_digest("model");
  v1::ChatTurn* turn = spec.add_turns();
  turn->set_role(v1::ROLE_USER);
  turn->set_text("hello");
  spec.set_plan("*:fp");
  v1::DecodingSettings* decoding = spec.mutable_decoding();
  decoding->set_max_new_tokens(48);
  decoding->mutable_sampling()->set_temperature(0.5);
  decoding->mutable_sampling()->set_top_p(0.25);
  decoding->mutable_sampling()->set_seed(3);
  decoding->mutable_sampling()->set_sample_index(4);
  decoding->set_stop_on_verdict("keyword/1");
  spec.set_jitter_seed(5);
  spec.set_numerics_class_id("class");
  spec.set_score_from_token(6);
  spec.set_score_window(7);
  spec.set_score_stride(8);
  return spec;
}

void ChangeScalar(const FieldDescriptor* field, Message* message) {
  const Reflection* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->SetUInt32(message, field, reflection->GetUInt32(*message, field) + 1);
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(message, field, reflection->GetUInt64(*message, field) + 1);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(message, field, reflection->GetDouble(*message, field) + 0.125);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(message, field, !reflection->GetBool(*message, field));
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->SetEnumValue(message, field,
                                      reflection->GetEnumValue(*message, field) == 1 ? 2 : 1);
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->SetString(message, field, reflection->GetString(*message, field) + "x");
    default:
      FAIL() << "a field of a new type: " << field->full_name() << "; teach this test about it";
  }
}

// Every message of the spec's tree with one scalar field changed, and the field's name.
struct Mutation {
  std::string field;
  v1::CellSpec spec;
};

void CollectMutations(const v1::CellSpec& original,
                      const std::function<Message*(v1::CellSpec*)>& find,
                      std::vector<Mutation>* mutations) {
  v1::CellSpec probe = original;
  const Message* at = find(&probe);
  for (int i = 0; i < at->GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = at->GetDescriptor()->field(i);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      CollectMutations(
          original,
          [&find, field](v1::CellSpec* spec) {
            Message* parent = find(spec);
            const Reflection* reflection = parent->GetReflection();
            return field->is_repeated() ? reflection->MutableRepeatedMessage(parent, field, 0)
                                        : reflection->MutableMessage(parent, field);
          },
          mutations);
      continue;
    }
    ASSERT_FALSE(field->is_repeated()) << field->full_name();
    Mutation mutation{field->full_name(), original};
    ChangeScalar(field, find(&mutation.spec));
    mutations->push_back(std::move(mutation));
  }
}

TEST(CellKeyTest, EveryFieldOfTheSpecChangesTheKey) {
  const v1::CellSpec original = FullSpec();
  std::vector<Mutation> mutations;
  CollectMutations(
      original, [](v1::CellSpec* spec) -> Message* { return spec; }, &mutations);
  ASSERT_GE(mutations.size(), 18u);
  std::set<std::string> keys = {CellKey(original)};
  for (const Mutation& mutation : mutations) {
    EXPECT_TRUE(keys.insert(CellKey(mutation.spec)).second)
        << mutation.field << " does not change the key";
  }
}

TEST(CellKeyTest, EqualSpecsHaveEqualKeysOf64HexadecimalDigits) {
  EXPECT_EQ(CellKey(FullSpec()), CellKey(FullSpec()));
  EXPECT_EQ(CellKey(FullSpec()).size(), 64u);
}

// Scores of the versions that cut a text off at a NaN are not taken for today's; answers are.
TEST(CellKeyTest, OnlyScoringHasChangedItsMeaning) {
  v1::CellSpec spec;
  spec.set_model_digest("model");
  spec.set_kind(v1::CELL_KIND_GENERATE);
  EXPECT_EQ(CellKey(spec), "39c33832cc1a07bb1dadb799e1eb0d08a11d71ec8119f94d1de49886224de707");
  spec.set_kind(v1::CELL_KIND_SCORE);
  EXPECT_NE(CellKey(spec), "bbaa94bfa567f49dda38cbaf7d7d5d2a90f8d141a93b72e2456ee3eabdb95ec9");
}

TEST(CellKeyTest, TurnsAreNotConfusedWithTheirConcatenation) {
  v1::CellSpec one = FullSpec();
  v1::CellSpec two = FullSpec();
  one.mutable_turns(0)->set_text("ab");
  one.add_turns()->set_text("c");
  two.mutable_turns(0)->set_text("a");
  two.add_turns()->set_text("bc");
  EXPECT_NE(CellKey(one), CellKey(two));
}

v1::CellResult SomeResult() {
  v1::CellResult result;
  result.set_cell_key("key");
  result.add_token_ids(1);
  result.add_token_ids(-1);
  result.set_text("text");
  result.set_finish_reason(v1::FINISH_REASON_EOS);
  result.set_nll_sum(1.5);
  for (const auto& [token, log_probability] : {std::pair(4, -0.25f), std::pair(9, -2.0f)}) {
    result.add_first_tokens()->set_token(token);
    result.mutable_first_tokens()->rbegin()->set_log_probability(log_probability);
  }
  return result;
}

TEST(ResultDigestTest, RunSpecificFieldsDoNotCountAndAllOthersDo) {
  const std::set<std::string> run_specific = {"worker_id", "seconds", "attempt"};
  const v1::CellResult original = SomeResult();
  const auto* descriptor = v1::CellResult::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    v1::CellResult changed = original;
    if (field->name() == "status") {
      changed.mutable_status()->set_code(13);
    } else if (field->name() == "first_tokens") {
      changed.mutable_first_tokens(0)->set_token(8);
    } else if (field->is_repeated()) {
      changed.add_token_ids(7);
    } else {
      ChangeScalar(field, &changed);
    }
    const bool same = ResultDigest(changed) == ResultDigest(original);
    EXPECT_EQ(same, run_specific.contains(field->name())) << field->name();
  }
}

TEST(ResultDigestTest, EveryBitAndTheOrderOfFirstTokensCount) {
  const v1::CellResult original = SomeResult();
  v1::CellResult moved = original;
  moved.mutable_first_tokens(1)->set_log_probability(std::nextafter(-2.0f, 0.0f));
  EXPECT_NE(ResultDigest(moved), ResultDigest(original));
  v1::CellResult swapped = original;
  swapped.mutable_first_tokens()->SwapElements(0, 1);
  EXPECT_NE(ResultDigest(swapped), ResultDigest(original));
  v1::CellResult none = original;
  none.clear_first_tokens();
  EXPECT_NE(ResultDigest(none), ResultDigest(original));
}

// Stored by versions that knew no first tokens.
TEST(ResultDigestTest, ResultWithoutFirstTokensKeepsItsDigest) {
  v1::CellResult old = SomeResult();
  old.clear_first_tokens();
  // hashlib over the fields in the form of services/common/digest.h.
  EXPECT_EQ(ResultDigest(old), "5a1aed65272877eaf220c7b80792a162ea2f23ec1d30860a247b67ef4e2e7d00");
}

TEST(VerdictKeyTest, DependsOnTheAnswerAndTheJudgeButNotOnTheCell) {
  v1::CellResult other_cell = SomeResult();
  other_cell.set_cell_key("another");
  EXPECT_EQ(VerdictKey(SomeResult(), "keyword", "1"), VerdictKey(other_cell, "keyword", "1"));
  EXPECT_NE(VerdictKey(SomeResult(), "keyword", "1"), VerdictKey(SomeResult(), "keyword", "2"));
  EXPECT_NE(VerdictKey(SomeResult(), "keyword", "1"), VerdictKey(SomeResult(), "other", "1"));
  v1::CellResult longer = SomeResult();
  longer.add_token_ids(2);
  EXPECT_NE(VerdictKey(SomeResult(), "keyword", "1"), VerdictKey(longer, "keyword", "1"));
}

v1::ModelInfo SmallModel() {
  v1::ModelInfo model;
  model.set_num_layers(4);
  model.set_num_kv_heads(2);
  model.set_head_dim(64);
  return model;
}

TEST(CanonicalizePlanTest, SpellingsOfOnePlanBecomeOneText) {
  ASSERT_OK_AND_ASSIGN(const std::string a,
                       CanonicalizePlan("*:fp,2:int3.sym.tensor", SmallModel(), false));
  ASSERT_OK_AND_ASSIGN(
      const std::string b,
      CanonicalizePlan("0-1:fp , 3:fp, 2 : int3.sym.tensor|int3.sym.tensor", SmallModel(), false));
  EXPECT_EQ(a, b);
}

TEST(CanonicalizePlanTest, ALayerThatTheModelLacksIsNamed) {
  EXPECT_THAT(CanonicalizePlan("*:fp,9:int3.sym.tensor", SmallModel(), false),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("9")));
}

TEST(PlanProtoTest, TextAndProtoSayTheSame) {
  for (const std::string text :
       {"*:fp", "*:int4.asym.token", "*:fp,2:int3.sym.tensor",
        "*:int4.affine.channel.window128x32.post.perhead.exact|"
        "int4.affine.group32.window128.perhead.exact",
        "*:fp8_e4m3|fp8_e5m2.torchcast", "*:int3.sym.group64.sink4.hadamard.native.s16"}) {
    SCOPED_TRACE(text);
    ASSERT_OK_AND_ASSIGN(const Plan plan, ParsePlan(text));
    ASSERT_OK_AND_ASSIGN(const Plan back, PlanFromProto(PlanToProto(plan)));
    EXPECT_EQ(plan.rules(), back.rules());
  }
}

TEST(PlanProtoTest, AFormatOutsideTheGrammarIsRefused) {
  v1::Plan proto;
  EXPECT_THAT(PlanFromProto(proto), StatusIs(absl::StatusCode::kInvalidArgument));
  v1::PlanRule* rule = proto.add_rules();
  rule->mutable_key()->set_type(v1::KV_TYPE_INT4);  // no symmetry
  rule->mutable_value()->set_type(v1::KV_TYPE_FP);
  EXPECT_THAT(PlanFromProto(proto),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rule 1, keys")));
  rule->mutable_key()->set_type(static_cast<v1::KvType>(77));
  EXPECT_THAT(PlanFromProto(proto), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("77")));
}

}  // namespace
}  // namespace plumbline
