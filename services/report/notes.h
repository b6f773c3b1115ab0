// Sentences that say which prompts a figure rests on and what a finding means. Empty where there is
// nothing to say.
#pragma once

#include <string>

#include "plumbline/v1/report.pb.h"

namespace plumbline {

// Policy paper has one prompt set: nothing is confirmed on prompts that had no part in a choice.
bool HasSplits(const v1::Report& report);
// What plans were measured on: "validation" and "test"; without splits "sample" and "whole set".
std::string PlanPrompts(const v1::Report& report, bool test);
// A candidate that ran on no prompt is none that failed.
bool WasTried(const v1::PlanResult& plan);
bool AnyTried(const v1::Report& report);

// What a failure mode means to someone who has not read the method.
std::string ModeMeaning(v1::FailureMode mode);

std::string SweepSample(const v1::Report& report);
// Empty until the confirmation has said which layers are critical.
std::string CriticalLayers(const v1::Report& report);
std::string LayerSample(const v1::Report& report);
std::string KvErrorSample(const v1::Report& report);
std::string ChannelSample(const v1::Report& report);
std::string PcrSample(const v1::PcrEstimate& estimate);
std::string PlanSample(const v1::Report& report);
std::string FloorSample(const v1::Report& report);
std::string ExampleCount(const v1::Report& report);

// All layers together turn most refusals into text that is no answer: their flips say little then.
std::string MostlyDegenerate(const v1::Report& report);

}  // namespace plumbline
