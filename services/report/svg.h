// A small SVG writer for charts: a plot area with axes in data coordinates. Colours are CSS
// classes, so that one picture serves light and dark pages.
#pragma once

#include <string>
#include <vector>

namespace plumbline {

struct Range {
  double low = 0;
  double high = 1;
};

class SvgPlot {
 public:
  // Sizes in user units; the picture scales to its column. Margins hold axis labels.
  SvgPlot(int width, int height, Range x, Range y, int margin_left = 52, int margin_bottom = 44);

  double PixelX(double x) const;
  double PixelY(double y) const;

  // Horizontal band [low, high] of y over the whole width, e.g. class "band-safe".
  void BandY(double low, double high, const std::string& css_class);
  void BandX(double low, double high, const std::string& css_class);
  void AxisY(const std::vector<double>& ticks, const std::vector<std::string>& labels,
             const std::string& title);
  // Labels turned by `slant` degrees, ending at their tick.
  void AxisX(const std::vector<double>& ticks, const std::vector<std::string>& labels,
             const std::string& title, int slant = 0);
  void Line(const std::vector<double>& x, const std::vector<double>& y,
            const std::string& css_class);
  void RuleY(double y, const std::string& css_class);  // horizontal line
  void Dot(double x, double y, const std::string& css_class, const std::string& tooltip,
           double radius = 4);
  void WhiskerY(double x, double low, double high, const std::string& css_class);
  void WhiskerX(double y, double low, double high, const std::string& css_class);
  // Bar from y = base to y, centred on x, `width` in data units.
  void BarY(double x, double width, double base, double y, const std::string& css_class,
            const std::string& tooltip);
  void BarX(double y, double height, double base, double x, const std::string& css_class,
            const std::string& tooltip);
  void Text(double x, double y, const std::string& text, const std::string& css_class,
            const std::string& anchor = "start", double dx = 0, double dy = 0);

  // `label` is what a screen reader says.
  std::string Finish(const std::string& label) const;

 private:
  std::string Title(const std::string& tooltip) const;
  void Rect(double left, double top, double width, double height, const std::string& css_class,
            const std::string& tooltip);
  int width_, height_, left_, bottom_;
  Range x_, y_;
  std::string body_;
};

}  // namespace plumbline
