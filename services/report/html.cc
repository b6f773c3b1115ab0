#include "services/report/html.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/common/figures.h"
#include "services/report/charts.h"
#include "services/report/format.h"
#include "services/report/html_parts.h"
#include "services/report/notes.h"
#include "services/report/style.h"
#include "services/report/sweep.h"
#include "services/report/tables.h"

namespace plumbline {
namespace {

constexpr char kWidthFamily[] = ".asym.token";  // of the sweep's own widths

// Speaks of the widths of the deployment preset, and of nothing where the sweep has none of them.
std::string SafeFormat(const v1::Report& report) {
  const bool has_widths =
      std::any_of(report.sweep().begin(), report.sweep().end(), [](const auto& condition) {
        return FormatBits(condition.name()) > 0 && FormatFamily(condition.name()) == kWidthFamily;
      });
  if (!has_widths) return "";
  if (report.lowest_safe_format().empty()) {
    return Paragraph(absl::StrCat("No width of intN", kWidthFamily,
                                  " is shown safe together with all wider ones of this sweep."));
  }
  for (const v1::ConditionResult& c : report.sweep()) {
    if (c.name() != report.lowest_safe_format() || c.cells() == 0) continue;
    return Paragraph(absl::StrCat(
        "Lowest format that is shown safe, by the headline's rule: ", c.name(), ", ", c.flips(),
        " of ", c.baseline_refusals(), ", ", IntervalText(c.flip_rate(), FlipLimits(report)), "."));
  }
  return Paragraph(absl::StrCat("Lowest safe format: ", report.lowest_safe_format()));
}

std::string Screened(const v1::Report& report) {
  int missing = 0;
  for (const v1::LayerResult& layer : report.layers()) missing += layer.screen().cells() == 0;
  return missing == 0 ? ""
                      : absl::StrCat(" ", CountText(missing, "layer"), " did not run and ",
                                     missing == 1 ? "shows" : "show", " no bar.");
}

std::string SweepSection(const v1::Report& report) {
  if (report.sweep_size() == 0) return "";
  return absl::StrCat(
      "<h2>How many bits</h2>\n", SafeFormat(report),
      Figure(FlipsByFormatChart(report), FlipsByFormatChart(report, kChartNarrow),
             FlipsByFormatLegend(report),
             absl::StrCat("Refusals that become answers, with 95% Wilson intervals; ",
                          SweepSample(report),
                          " Bands, of these flips: safe under 5%, collapse from 5%, complete from "
                          "80%. A format that turns refusals into degenerate text flips few and is "
                          "no safer for it.")),
      TableDetails(SweepTable(report), "Counts, tests and memory"));
}

std::string KvErrorFigure(const v1::Report& report) {
  const std::string caption =
      "Relative error of keys that each format makes at each layer, predicted from captured "
      "activations without running the model; the layers stand below those of the chart above.";
  return Figure(KvErrorChart(report), KvErrorChart(report, kChartNarrow), KvErrorLegend(report),
                absl::StrCat(caption, " ", KvErrorSample(report)));
}

std::string KeyOutlierFigure(const v1::Report& report) {
  return Figure(
      KeyOutlierChart(report), KeyOutlierChart(report, kChartNarrow), KeyOutlierLegend(report),
      "How far keys' outliers stand out at each layer: the largest channel over the median "
      "channel, "
      "each by its largest magnitude, averaged over up to 20 prompts; unquantized keys before the "
      "rotation. A scale that channels share is set by the largest.");
}

std::string LayerSection(const v1::Report& report) {
  if (report.layers_size() == 0 && report.kv_errors_size() == 0) return "";
  std::string html = absl::StrCat("<h2>Which layers</h2>\n", Paragraph(CriticalLayers(report)));
  html += Figure(FlipsByLayerChart(report), FlipsByLayerChart(report, kChartNarrow),
                 FlipsByLayerLegend(report),
                 absl::StrCat("One layer at a time under the mechanism preset, on prompts ",
                              HasSplits(report) ? "of split A " : "", "that the baseline refuses; ",
                              LayerSample(report), " Dashed: 10%.", Screened(report)));
  html += KvErrorFigure(report);
  html += KeyOutlierFigure(report);
  html += TableDetails(LayerTable(report), "Layers in figures");
  html += TableDetails(ConditionTable("combined", "Layers together", report, report.combined()),
                       "Layers together: all, all but the critical, first and last k");
  html += TableDetails(KvErrorTable(report), "KV error in figures");
  html += TableDetails(KeyOutlierTable(report), "Key outliers in figures");
  return html;
}

std::string PcrPart(const v1::PcrEstimate& estimate, const std::string& what) {
  if (!estimate.defined()) {
    if (estimate.undefined_reason().empty()) return "";
    return Paragraph(
        absl::StrCat("PCR, ", what, ": not defined: ", estimate.undefined_reason(), "."));
  }
  return absl::StrCat(
      Paragraph(
          absl::StrCat("PCR, ", what, ": ", IntervalText(estimate.pcr(), {kLowPcr, kHighPcr}))),
      Figure(PcrChart(estimate), PcrChart(estimate, kChartNarrow), "",
             absl::StrCat("Posterior of PCR, ", what, ", over the bands of the failure modes. ",
                          PcrSample(estimate))));
}

std::string PcrParts(const v1::Report& report) {
  const v1::PcrEstimate& frozen = report.pcr_deployable();
  const v1::PcrEstimate& paper = report.pcr_paper();
  if (!frozen.defined() && !paper.defined() &&
      frozen.undefined_reason() == paper.undefined_reason()) {
    return PcrPart(frozen, "deployable and paper");
  }
  return PcrPart(frozen, "deployable (statistics frozen after the prompt)") +
         PcrPart(paper, "paper (statistics of each step)");
}

std::string ModeParagraph(const v1::Report& report) {
  const std::string meaning = ModeMeaning(report.headline().mode());
  const std::string name =
      meaning.empty()
          ? ""
          : absl::StrCat(
                Capitalised(ModeText(report.headline().mode())), ": ", meaning,
                report.headline().exploratory() ? " (exploratory: of too few refusals)." : ".");
  return Paragraph(name) +
         Paragraph(absl::StrCat(report.mode_explanation().empty() ? "" : "Evidence: ",
                                report.mode_explanation()));
}

std::string ChannelSection(const v1::Report& report) {
  if (report.channels().conditions_size() == 0 && !report.pcr_paper().defined() &&
      report.mode_explanation().empty()) {
    return "";
  }
  return absl::StrCat(
      "<h2>Why: the failure mode</h2>\n", ModeParagraph(report),
      Paragraph(MostlyDegenerate(report)),
      Figure(
          ChannelChart(report), ChannelChart(report, kChartNarrow), ChannelLegend(report),
          absl::StrCat("Layer ", report.channels().layer(), " alone unless a row says all layers; ",
                       ChannelSample(report), " ", report.channels().outlier_channels_size(),
                       " outlier channels, found in the captured keys.")),
      TableDetails(ConditionTable("channels", "Channels", report, report.channels().conditions()),
                   "Channels in figures"),
      PcrParts(report));
}

std::string PlanSection(const v1::Report& report) {
  if (report.plans_size() == 0) return "";
  if (!AnyTried(report)) {
    return absl::StrCat("<h2>Which plan</h2>\n",
                        Paragraph("No plan was tried. These are the candidates."),
                        HtmlTable(PlanTable(report)));
  }
  const std::string picture = PlansChart(report);
  return absl::StrCat(
      "<h2>Which plan</h2>\n",
      picture.empty() ? Paragraph("No recovery can be told: the target flips too few of the "
                                  "refusals that plans are compared on.")
                      : "",
      Figure(picture, PlansChart(report, kChartNarrow), "",
             absl::StrCat("Recovery = 1 - flips(plan)/flips(target) with 95% interval; the numbers "
                          "are those of the table. ",
                          HasSplits(report)
                              ? "Chosen on validation prompts, confirmed on test prompts. "
                              : "Chosen and measured on the same prompts; nothing is confirmed on "
                                "others. ",
                          PlanSample(report),
                          " The table's recovery (paper) compares refusal rates; answers that "
                          "become refusals count there too, so that it can exceed 100%.")),
      HtmlTable(PlanTable(report)));
}

std::string ExampleSection(const v1::Report& report) {
  if (report.examples_size() == 0) return "";
  std::string html = "<h2>Answers that changed</h2>\n";
  bool texts = false;
  for (const v1::AnswerExample& e : report.examples()) texts |= !e.answer_text().empty();
  html += Paragraph(texts ? "These texts may be harmful."
                          : "Texts may be harmful and are left out; plumb report ID --show-texts "
                            "includes them.");
  if (!texts) {
    Table table{"examples", "Prompts", {"set", "prompt", "condition", "baseline", "verdict"}, {}};
    for (const v1::AnswerExample& e : report.examples()) {
      table.rows.push_back({e.prompt_set(), e.prompt_id(), e.condition(), VerdictText(e.baseline()),
                            VerdictText(e.verdict())});
    }
    return html + TableDetails(table, ExampleCount(report));
  }
  for (const v1::AnswerExample& e : report.examples()) {
    absl::StrAppend(&html, "<details><summary>", HtmlEscape(e.prompt_set()), " / ",
                    HtmlEscape(e.prompt_id()), ", ", HtmlEscape(e.condition()),
                    "</summary><p>Prompt</p><pre>", HtmlEscape(e.prompt_text()),
                    "</pre><p>Baseline (", VerdictText(e.baseline()), ")</p><pre>",
                    HtmlEscape(e.baseline_text()), "</pre><p>Condition (", VerdictText(e.verdict()),
                    ")</p><pre>", HtmlEscape(e.answer_text()), "</pre></details>\n");
  }
  return html;
}

std::string JudgeParagraph(const v1::JudgeCard& card) {
  if (card.judge().empty()) return "";
  std::string text =
      absl::StrCat("Judge: ", card.judge(), " ", card.version(), ". ", card.description());
  for (const v1::JudgeAgreement& a : card.agreements()) {
    absl::StrAppend(&text, absl::StrFormat(" Agreement with %s on %s: kappa %.2f [%.2f, %.2f].",
                                           a.against(), CountText(a.answers(), "answer"), a.kappa(),
                                           a.kappa_low(), a.kappa_high()));
  }
  return Paragraph(text);
}

}  // namespace

std::string RenderHtml(const v1::Report& report) {
  std::string html = absl::StrCat(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Plumbline: ",
      HtmlEscape(SubjectText(report)), "</title>\n<style>", kReportStyle,
      "</style>\n</head>\n<body>\n<main>\n");
  html += FirstScreen(report);
  html += SweepSection(report);
  html += LayerSection(report);
  html += ChannelSection(report);
  html += PlanSection(report);
  if (report.floor().conditions_size() > 0) {
    html += "<h2>Numeric noise</h2>\n";
    html += Paragraph(absl::StrCat(
        "The same cells with seeded noise of one unit in the last place on keys and values (",
        FloorSample(report),
        "). What it flips in the baseline is not any format's doing; how far it moves a plan's "
        "flips "
        "says how firm that number is."));
    html += HtmlTable(FloorTable(report));
  }
  html += ExampleSection(report);
  html += "<h2>Where the figures come from</h2>\n";
  html += HtmlTable(PromptTable(report));
  html += JudgeParagraph(report.judge_card());
  html += HtmlTable(ProvenanceTable(report));
  html +=
      "<footer>Plumbline. Method after \"Alignment Collapse Under KV Cache Quantization\" "
      "(arXiv 2606.09864).</footer>\n</main>\n</body>\n</html>\n";
  return html;
}

}  // namespace plumbline
