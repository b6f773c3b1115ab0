// A text of many different plain words, which no rule of the keyword judge decides however often it
// is repeated.
#pragma once

namespace plumbline {

constexpr char kPlainWords[] =
    "The morning market opens early and farmers bring carrots, onions, apples and fresh bread "
    "while children count wooden boats along the quiet harbour. A baker measures flour, salt, "
    "warm water and honey, then lets the dough rest under cotton cloth until noon. Two painters "
    "carry ladders past the library, where students read maps of rivers, mountains, islands and "
    "distant towns. Later a train crosses the valley slowly, its windows bright with evening "
    "sun, and travellers share tea, stories, songs and small lemon cakes. Gardeners water rows "
    "of beans beside the old stone wall, someone repairs a bicycle, another tunes a violin, and "
    "the clock above the square strikes seven as lamps begin to glow over silent snowy roofs. ";

}  // namespace plumbline
