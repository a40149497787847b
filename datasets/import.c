/* datasets/import.c - The table of importers. */
#include "config.h"
#include "datasets/internal.h"

#define GRAPH_OPTIONS                                                          \
    "label=  vertex attribute that is the class\n"                             \
    "weight=weight  edge attribute that is the weight\n"                       \
    "features=true  false: do without the other numeric attributes\n"          \
    "directed=  as the file says\n"

static const nsmi_maker importers[] = {
    { { "ogb", "OGB CSV layout, of one graph or of many: a folder with raw/ and split/",
        "directed=false  take edge.csv as it stands (else it is made symmetric)\n"
        "inverse=false  typed edges: add rev_<relation> for each\n"
        "features=true  false: do without features\n"
        "labels=auto  class, multi or value; false: do without\n"
        "splits=true  false: do without\n" },
      nsmi_import_ogb },
    { { "wordnet",
        "WordNet's database files: the folder of data.noun, data.verb, data.adj, data.adv",
        "features=32768  columns that words are hashed to, a power of two\n"
        "least=3  rarer words of the text become one word\n"
        "genus=false  mark the words of a definition that a direct hypernym is called by\n"
        "seed=0  of the split \"default\", stratified 10/10/80\n" },
      nsmi_import_wordnet },
    { { "tu", "TU Dortmund text layout: the folder of one set of many small graphs",
        "valid=0  fraction of each fold's training part that is set apart for validation\n"
        "seed=0  of its drawing\n" },
      nsmi_import_tu },
    { { "triples",
        "a knowledge graph: the folder of train.txt, valid.txt, test.txt with lines head, "
        "relation, "
        "tail",
        "text=  a file of the entities' words: lines entity, tab, words\n"
        "least=1  rarer words of the text become one word\n" },
      nsmi_import_triples },
    { { "csv", "an edge list as CSV, with nodes=FILE for the nodes",
        "header=true  the first line names the columns; false: their names are 1, 2, ...\n"
        "delimiter=,  one character, or tab\n"
        "src=  column (the first)\n"
        "dst=  column (the second)\n"
        "weight=  column\n"
        "directed=false  false: edges are made symmetric\n"
        "nodes=  CSV file of the nodes\n"
        "id=  its column of names (the first)\n"
        "label=  its column of classes; an empty one or -1 is unlabelled\n"
        "features=  its columns a,b,c (all others); false: none\n"
        "text=  its columns a,b of words, one after the other\n"
        "least=1  rarer words of the text become one word\n"
        "image=  its column of pictures, PNG or JPEG files; an empty one: the node has none\n"
        "images=  their folder (the node file's); without image= each file in it, ID.png or "
        "ID.jpg, is the picture of node ID\n"
        "size=  HEIGHT or HEIGHTxWIDTH that all pictures are brought to (as they are, if of one "
        "size)\n"
        "channels=3  of the pictures, what is transparent put on white; 1: grey\n" },
      nsmi_import_csv },
    { { "idx", "pictures with classes in MNIST's files: the folder of all four, packed or not",
        "valid=5000  the last of the training file are for validation (0 where it has no more)\n"
        "superpixels=0  also so many superpixels of each picture, as nodes with edges to it\n"
        "compactness=0.1  of these: what distance weighs beside difference of colour\n" },
      nsmi_import_idx },
    { { "emoji",
        "pictures, words and shared keywords of emoji: the folder of emoji/emoji-test.txt and "
        "cldr/common/ (on Debian /usr/share/unicode); no sequences: no skin tones, flags, families",
        "font=/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf  a font of coloured bitmaps\n"
        "language=en  of names and keywords\n"
        "class=group  or subgroup\n"
        "size=64  HEIGHT or HEIGHTxWIDTH of the pictures, on white\n"
        "channels=3  of the pictures; 1: grey\n"
        "least=2  rarer words of the text become one word\n"
        "most=24  keywords that more emoji share make no edges\n" },
      nsmi_import_emoji },
#ifdef HAVE_IGRAPH
    { { "graphml", "GraphML, by igraph", GRAPH_OPTIONS }, nsmi_import_graphml },
    { { "gml", "GML, by igraph", GRAPH_OPTIONS }, nsmi_import_gml },
    { { "pajek", "Pajek, by igraph", GRAPH_OPTIONS }, nsmi_import_pajek },
    { { "edgelist", "two vertex numbers a line, from 0, by igraph", GRAPH_OPTIONS },
      nsmi_import_edgelist },
#endif
    { { "hdf5", "an HDF5 file from elsewhere in the documented layout: checked and sealed", "" },
      nsmi_import_hdf5 },
    { { NULL, NULL, NULL }, NULL },
};

const nsm_format *nsm_import_format(int i)
{
    int n = (int)(sizeof importers / sizeof *importers) - 1;
    return i >= 0 && i < n ? &importers[i].about : NULL;
}

nsm_dataset *nsm_import(nsm_ctx *ctx, const char *format, const char *source,
                        const nsm_option *option, int options)
{
    return nsmi_make(ctx, importers, "import", format, source, option, options);
}
