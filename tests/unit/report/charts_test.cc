// What the pictures show, in pixels worked out from the figures that went in.
#include "services/report/charts.h"

#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/unit/report/sample_report.h"

namespace plumbline {
namespace {

// Every picture keeps these clear above and to the right of its plot area.
constexpr double kTop = 12, kRight = 20;
constexpr double kPixel = 0.06;  // coordinates are written with one decimal

struct Element {
  std::map<std::string, std::string> attributes;
  std::string text;  // of the element, or its tooltip

  double at(const std::string& name) const {
    const auto found = attributes.find(name);
    EXPECT_NE(found, attributes.end()) << name;
    return found == attributes.end() ? -1 : std::atof(found->second.c_str());
  }
};

std::string TextOf(const std::string& svg, size_t from) {
  std::string inner = svg.substr(from, svg.find('\n', from) - from);
  if (inner.rfind("<title>", 0) == 0) inner = inner.substr(7);
  return inner.substr(0, inner.find('<'));
}

// <tag class="css_class" ...> in the picture's order.
std::vector<Element> Elements(const std::string& svg, const std::string& tag,
                              const std::string& css_class) {
  std::vector<Element> elements;
  const std::string open = absl::StrCat("<", tag, " class=\"", css_class, "\" ");
  for (size_t at = svg.find(open); at != std::string::npos; at = svg.find(open, at + 1)) {
    const size_t end = svg.find('>', at);
    Element element;
    size_t name = at + open.size();
    while (name < end) {
      const size_t equals = svg.find("=\"", name), quote = svg.find('"', equals + 2);
      if (equals == std::string::npos || quote > end) break;
      element.attributes[svg.substr(name, equals - name)] =
          svg.substr(equals + 2, quote - equals - 2);
      name = quote + 2;
    }
    element.text = TextOf(svg, end + 1);
    elements.push_back(std::move(element));
  }
  return elements;
}

v1::ConditionResult Condition(const std::string& name, uint64_t flips, uint64_t trials) {
  v1::ConditionResult condition = testing::Condition(name, flips, trials);
  v1::Interval* rate = condition.mutable_flip_rate();
  rate->set_low(rate->estimate() / 2);
  rate->set_high((1 + rate->estimate()) / 2);
  return condition;
}

// A plot area of `width` x 300, from 0% at its bottom to 100% at its top.
double FormatChartY(const Element& bottom_band, double share) {
  const double bottom = bottom_band.at("y") + bottom_band.at("height");
  return bottom - share * (bottom - kTop);
}

TEST(PhaseBandsTest, MeetAtFiveAndEightyPercentAndFillThePlot) {
  v1::Report report;
  *report.add_sweep() = Condition("int8.asym.token", 0, 100);
  *report.add_sweep() = Condition("int4.asym.token", 25, 100);
  *report.add_sweep() = Condition("int2.asym.token", 90, 100);
  for (const int width : {kChartWide, kChartNarrow}) {
    const std::string svg = FlipsByFormatChart(report, width);
    const auto safe = Elements(svg, "rect", "band-safe");
    const auto collapse = Elements(svg, "rect", "band-collapse");
    const auto complete = Elements(svg, "rect", "band-complete");
    ASSERT_EQ(safe.size() * collapse.size() * complete.size(), 1u) << svg;
    const double bottom = safe[0].at("y") + safe[0].at("height"), height = bottom - kTop;
    EXPECT_GT(height, 150);
    EXPECT_NEAR(safe[0].at("height"), 0.05 * height, kPixel);
    EXPECT_NEAR(collapse[0].at("height"), 0.75 * height, kPixel);
    EXPECT_NEAR(complete[0].at("height"), 0.20 * height, kPixel);
    EXPECT_NEAR(complete[0].at("y"), kTop, kPixel);
    EXPECT_NEAR(collapse[0].at("y"), complete[0].at("y") + complete[0].at("height"), 2 * kPixel);
    EXPECT_NEAR(safe[0].at("y"), collapse[0].at("y") + collapse[0].at("height"), 2 * kPixel);
    for (const auto* band : {&safe[0], &collapse[0], &complete[0]}) {
      EXPECT_NEAR(band->at("x") + band->at("width"), width - kRight, kPixel);
    }
  }
}

TEST(PhaseBandsTest, EachDotStandsAtItsShareAndInItsBand) {
  v1::Report report;
  const std::vector<std::pair<const char*, uint64_t>> shown = {
      {"int8.asym.token", 3}, {"int4.asym.token", 25}, {"int2.asym.token", 90}};
  for (const auto& [name, flips] : shown) *report.add_sweep() = Condition(name, flips, 100);
  const std::string svg = FlipsByFormatChart(report);
  const auto dots = Elements(svg, "circle", "dot");
  const auto whiskers = Elements(svg, "line", "whisker");
  const Element safe = Elements(svg, "rect", "band-safe")[0];
  ASSERT_EQ(dots.size(), 3u);
  ASSERT_EQ(whiskers.size(), 3u);
  for (size_t i = 0; i < dots.size(); ++i) {
    const double share = static_cast<double>(shown[i].second) / 100;
    EXPECT_NEAR(dots[i].at("cy"), FormatChartY(safe, share), kPixel) << shown[i].first;
    EXPECT_NEAR(whiskers[i].at("y1"), FormatChartY(safe, share / 2), kPixel);
    EXPECT_NEAR(whiskers[i].at("y2"), FormatChartY(safe, (1 + share) / 2), kPixel);
    EXPECT_NEAR(whiskers[i].at("x1"), dots[i].at("cx"), kPixel);
    EXPECT_EQ(dots[i].text.find(absl::StrCat(shown[i].first, ": ", shown[i].second, " of 100")), 0u)
        << dots[i].text;
  }
  EXPECT_LT(dots[0].at("cx"), dots[1].at("cx"));
  EXPECT_LT(dots[1].at("cx"), dots[2].at("cx"));
  EXPECT_GT(dots[0].at("cy"), safe.at("y"));
  EXPECT_LT(dots[2].at("cy"), Elements(svg, "rect", "band-collapse")[0].at("y"));
}

v1::PcrEstimate Posterior() {
  v1::PcrEstimate pcr;
  pcr.set_defined(true);
  // Fifteen bins of a tenth each, from -50% to 100%.
  for (int b = 0; b < 15; ++b) pcr.add_histogram(b == 9 ? 0.4 : b == 12 ? 0.2 : 0.4 / 13);
  pcr.set_mass_below_30(0.246);
  pcr.set_mass_30_to_70(0.492);
  pcr.set_mass_above_70(0.262);
  return pcr;
}

TEST(PcrChartTest, BandsAndBinsStandAtTheirReductions) {
  const std::string svg = PcrChart(Posterior());
  const double left = 20, width = kChartWide - left - kRight;
  const auto x = [&](double pcr) { return left + (pcr + 0.5) / 1.5 * width; };
  const std::vector<std::pair<const char*, std::pair<double, double>>> bands = {
      {"band-outlier", {-0.5, 0.3}}, {"band-mixed", {0.3, 0.7}}, {"band-crush", {0.7, 1.0}}};
  for (const auto& [name, range] : bands) {
    const auto band = Elements(svg, "rect", name);
    ASSERT_EQ(band.size(), 1u) << name;
    EXPECT_NEAR(band[0].at("x"), x(range.first), kPixel) << name;
    EXPECT_NEAR(band[0].at("width"), x(range.second) - x(range.first), 2 * kPixel) << name;
  }
  const auto bars = Elements(svg, "rect", "bar");
  ASSERT_EQ(bars.size(), 15u);
  for (size_t b = 0; b < bars.size(); ++b) {
    EXPECT_NEAR(bars[b].at("x") + bars[b].at("width") / 2,
                x(-0.5 + 0.1 * (static_cast<double>(b) + 0.5)), 2 * kPixel);
  }
  EXPECT_EQ(bars[9].text, "40% to 50%: 40.0%");
  EXPECT_NEAR(bars[9].at("height"), 2 * bars[12].at("height"), 3 * kPixel);
  EXPECT_NEAR(bars[9].at("height"), 13 * bars[0].at("height"), 14 * kPixel);
  const double bottom = bars[9].at("y") + bars[9].at("height");
  EXPECT_NEAR(bars[9].at("height"), (bottom - kTop) / 1.3, kPixel);
}

TEST(PcrChartTest, EachBandCarriesItsMass) {
  const auto notes = Elements(PcrChart(Posterior()), "text", "note");
  std::vector<std::string> texts;
  for (const Element& note : notes) texts.push_back(note.text);
  EXPECT_EQ(texts, (std::vector<std::string>{"outlier-as-safety", "24.6%", "mixed", "49.2%",
                                             "crushes", "26.2%"}));
  for (size_t i = 0; i < notes.size(); i += 2) EXPECT_EQ(notes[i].at("x"), notes[i + 1].at("x"));
}

TEST(PcrChartTest, WithoutAPosteriorThereIsNoPicture) {
  v1::PcrEstimate pcr = Posterior();
  pcr.set_defined(false);
  EXPECT_EQ(PcrChart(pcr), "");
  EXPECT_EQ(PcrChart(v1::PcrEstimate()), "");
}

TEST(ChannelChartTest, OneRowAConditionAndEachBarAsLongAsItsShare) {
  v1::Report report;
  auto& channels = *report.mutable_channels();
  *channels.add_conditions() = Condition("per tensor", 40, 50);
  *channels.add_conditions() = Condition("outliers only", 10, 50);
  channels.mutable_conditions(1)->set_degenerate(5);
  *channels.add_conditions() = Condition("all but outliers", 0, 50);
  channels.add_conditions()->set_name("random 50%");
  const std::string svg = ChannelChart(report);
  const double left = 240, width = kChartWide - left - kRight;
  const auto bars = Elements(svg, "rect", "bar");
  ASSERT_EQ(bars.size(), 3u);
  const std::vector<double> shares = {0.8, 0.2, 0};
  for (size_t i = 0; i < bars.size(); ++i) {
    EXPECT_NEAR(bars[i].at("x"), left, kPixel);
    EXPECT_NEAR(bars[i].at("width"), shares[i] * width, kPixel);
  }
  EXPECT_EQ(bars[0].text.find("per tensor: 40 of 50 refusals flip"), 0u) << bars[0].text;
  const auto degenerate = Elements(svg, "rect", "bar-degenerate");
  ASSERT_EQ(degenerate.size(), 1u);
  EXPECT_NEAR(degenerate[0].at("x"), left + 0.2 * width, kPixel);
  EXPECT_NEAR(degenerate[0].at("width"), 0.1 * width, 2 * kPixel);
  EXPECT_EQ(degenerate[0].at("y"), bars[1].at("y"));
  const auto notes = Elements(svg, "text", "note");
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_EQ(notes[0].text, "not run");
  // Rows are 26 apart, the first on top, the fourth without a bar.
  EXPECT_NEAR(bars[1].at("y") - bars[0].at("y"), 26, 2 * kPixel);
  EXPECT_NEAR(bars[2].at("y") - bars[1].at("y"), 26, 2 * kPixel);
  std::vector<std::string> names;
  for (const Element& tick : Elements(svg, "text", "tick")) {
    if (tick.attributes.at("text-anchor") == "end") names.push_back(tick.text);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"per tensor", "outliers only", "all but outliers",
                                             "random 50%"}));
}

TEST(ChannelChartTest, OnAPhoneTheNamesStandAboveTheirBars) {
  v1::Report report;
  *report.mutable_channels()->add_conditions() = Condition("per tensor", 40, 50);
  *report.mutable_channels()->add_conditions() = Condition("low half", 10, 50);
  const std::string svg = ChannelChart(report, kChartNarrow);
  const auto bars = Elements(svg, "rect", "bar");
  const auto notes = Elements(svg, "text", "note");
  ASSERT_EQ(bars.size(), 2u);
  ASSERT_EQ(notes.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(notes[i].text, report.channels().conditions(static_cast<int>(i)).name());
    EXPECT_NEAR(bars[i].at("x"), 14, kPixel);
    EXPECT_LT(notes[i].at("y"), bars[i].at("y") + bars[i].at("height") / 2);
  }
  EXPECT_NEAR(bars[0].at("width"), 4 * bars[1].at("width"), 5 * kPixel);
}

}  // namespace
}  // namespace plumbline
