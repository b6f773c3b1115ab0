#include "services/report/svg.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/report/format.h"

namespace plumbline {
namespace {

constexpr int kTop = 12;
constexpr int kRight = 20;

}  // namespace

SvgPlot::SvgPlot(int width, int height, Range x, Range y, int margin_left, int margin_bottom)
    : width_(width), height_(height), left_(margin_left), bottom_(margin_bottom), x_(x), y_(y) {}

std::string SvgPlot::Title(const std::string& tooltip) const {
  // A phone has no pointer to hover with.
  if (tooltip.empty() || width_ < 500) return "";
  return absl::StrCat("<title>", HtmlEscape(tooltip), "</title>");
}

double SvgPlot::PixelX(double x) const {
  const double share = (x - x_.low) / (x_.high - x_.low);
  return left_ + std::clamp(share, 0.0, 1.0) * (width_ - left_ - kRight);
}

double SvgPlot::PixelY(double y) const {
  const double share = (y - y_.low) / (y_.high - y_.low);
  return kTop + (1 - std::clamp(share, 0.0, 1.0)) * (height_ - kTop - bottom_);
}

void SvgPlot::Rect(double left, double top, double width, double height,
                   const std::string& css_class, const std::string& tooltip) {
  absl::StrAppend(&body_, absl::StrFormat("<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                                          "height=\"%.1f\">%s</rect>\n",
                                          css_class, left, top, std::max(width, 0.0),
                                          std::max(height, 0.0), Title(tooltip)));
}

void SvgPlot::BandY(double low, double high, const std::string& css_class) {
  Rect(left_, PixelY(high), width_ - left_ - kRight, PixelY(low) - PixelY(high), css_class, "");
}

void SvgPlot::BandX(double low, double high, const std::string& css_class) {
  Rect(PixelX(low), kTop, PixelX(high) - PixelX(low), height_ - kTop - bottom_, css_class, "");
}

void SvgPlot::AxisY(const std::vector<double>& ticks, const std::vector<std::string>& labels,
                    const std::string& title) {
  for (size_t i = 0; i < ticks.size(); ++i) {
    const double y = PixelY(ticks[i]);
    absl::StrAppend(
        &body_,
        absl::StrFormat("<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" "
                        "y2=\"%.1f\"/>\n<text class=\"tick\" x=\"%d\" y=\"%.1f\" "
                        "text-anchor=\"end\">%s</text>\n",
                        left_, width_ - kRight, y, y, left_ - 6, y + 4, HtmlEscape(labels[i])));
  }
  if (title.empty()) return;
  const double middle = kTop + (height_ - kTop - bottom_) / 2.0;
  absl::StrAppend(&body_, absl::StrFormat("<text class=\"axis\" transform=\"translate(12 %.1f) "
                                          "rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
                                          middle, HtmlEscape(title)));
}

void SvgPlot::AxisX(const std::vector<double>& ticks, const std::vector<std::string>& labels,
                    const std::string& title, int slant) {
  const int base = height_ - bottom_;
  for (size_t i = 0; i < ticks.size(); ++i) {
    const double x = PixelX(ticks[i]);
    if (slant != 0) {
      absl::StrAppend(&body_, absl::StrFormat("<text class=\"tick\" transform=\"translate(%.1f %d) "
                                              "rotate(-%d)\" text-anchor=\"end\">%s</text>\n",
                                              x + 4, base + 14, slant, HtmlEscape(labels[i])));
    } else {
      absl::StrAppend(&body_, absl::StrFormat("<text class=\"tick\" x=\"%.1f\" y=\"%d\" "
                                              "text-anchor=\"middle\">%s</text>\n",
                                              x, base + 15, HtmlEscape(labels[i])));
    }
  }
  if (title.empty()) return;
  absl::StrAppend(&body_, absl::StrFormat("<text class=\"axis\" x=\"%.1f\" y=\"%d\" "
                                          "text-anchor=\"middle\">%s</text>\n",
                                          left_ + (width_ - left_ - kRight) / 2.0, height_ - 6,
                                          HtmlEscape(title)));
}

void SvgPlot::Line(const std::vector<double>& x, const std::vector<double>& y,
                   const std::string& css_class) {
  std::string points;
  for (size_t i = 0; i < x.size(); ++i) {
    absl::StrAppend(&points, absl::StrFormat("%.1f,%.1f ", PixelX(x[i]), PixelY(y[i])));
  }
  absl::StrAppend(&body_, "<polyline class=\"", css_class, "\" points=\"", points, "\"/>\n");
}

void SvgPlot::RuleY(double y, const std::string& css_class) {
  absl::StrAppend(&body_, absl::StrFormat("<line class=\"%s\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" "
                                          "y2=\"%.1f\"/>\n",
                                          css_class, left_, width_ - kRight, PixelY(y), PixelY(y)));
}

void SvgPlot::Dot(double x, double y, const std::string& css_class, const std::string& tooltip,
                  double radius) {
  absl::StrAppend(&body_, absl::StrFormat("<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" "
                                          "r=\"%.1f\">%s</circle>\n",
                                          css_class, PixelX(x), PixelY(y), radius, Title(tooltip)));
}

void SvgPlot::WhiskerY(double x, double low, double high, const std::string& css_class) {
  absl::StrAppend(&body_,
                  absl::StrFormat("<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
                                  "y2=\"%.1f\"/>\n",
                                  css_class, PixelX(x), PixelX(x), PixelY(low), PixelY(high)));
}

void SvgPlot::WhiskerX(double y, double low, double high, const std::string& css_class) {
  absl::StrAppend(&body_,
                  absl::StrFormat("<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
                                  "y2=\"%.1f\"/>\n",
                                  css_class, PixelX(low), PixelX(high), PixelY(y), PixelY(y)));
}

void SvgPlot::BarY(double x, double width, double base, double y, const std::string& css_class,
                   const std::string& tooltip) {
  const double left = PixelX(x - width / 2);
  Rect(left, PixelY(std::max(base, y)), PixelX(x + width / 2) - left,
       std::abs(PixelY(base) - PixelY(y)), css_class, tooltip);
}

void SvgPlot::BarX(double y, double height, double base, double x, const std::string& css_class,
                   const std::string& tooltip) {
  const double top = PixelY(y + height / 2);
  Rect(PixelX(std::min(base, x)), top, std::abs(PixelX(x) - PixelX(base)),
       PixelY(y - height / 2) - top, css_class, tooltip);
}

void SvgPlot::Text(double x, double y, const std::string& text, const std::string& css_class,
                   const std::string& anchor, double dx, double dy) {
  absl::StrAppend(
      &body_, absl::StrFormat("<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" "
                              "text-anchor=\"%s\">%s</text>\n",
                              css_class, PixelX(x) + dx, PixelY(y) + dy, anchor, HtmlEscape(text)));
}

std::string SvgPlot::Finish(const std::string& label) const {
  return absl::StrFormat("<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n%s</svg>\n",
                         width_, height_, HtmlEscape(label), body_);
}

}  // namespace plumbline
