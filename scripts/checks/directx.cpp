// directx (dxc|fxc) TABLE FILE...: compiles compute shaders in HLSL with Microsoft's compilers,
// under Wine. Prints what is refused, what takes more than two seconds, and where FXC leaves
// barriers out. Adds a line for each shader to TABLE: milliseconds, barriers in the source and in
// FXC's code, name.
#include <windows.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

struct Blob : IUnknown {
    virtual void *STDMETHODCALLTYPE GetBufferPointer() = 0;
    virtual SIZE_T STDMETHODCALLTYPE GetBufferSize() = 0;
};
struct Result : IUnknown {
    virtual HRESULT STDMETHODCALLTYPE GetStatus(HRESULT *) = 0;
    virtual HRESULT STDMETHODCALLTYPE GetResult(Blob **) = 0;
    virtual HRESULT STDMETHODCALLTYPE GetErrorBuffer(Blob **) = 0;
};
struct Source {
    LPCVOID text;
    SIZE_T bytes;
    UINT encoding;
};
struct Compiler : IUnknown {
    virtual HRESULT STDMETHODCALLTYPE Compile(const Source *, LPCWSTR *, UINT32, IUnknown *, REFIID, LPVOID *) = 0;
};
static const GUID CLASS = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID COMPILER = {0x228B4687, 0x5A6A, 0x4730, {0x90, 0x0C, 0x97, 0x02, 0xB2, 0x20, 0x3F, 0x54}};
static const GUID RESULT = {0x58346CDA, 0xDDE7, 0x4497, {0x94, 0x61, 0x6F, 0x87, 0xAF, 0x5E, 0x06, 0x59}};

static bool dxc(const std::string &text, const std::string &entry, std::string &words) {
    static Compiler *compiler = nullptr;
    if (!compiler) {
        auto create = (HRESULT(WINAPI *)(REFIID, REFIID, LPVOID *))GetProcAddress(LoadLibraryA("dxcompiler.dll"), "DxcCreateInstance");
        if (!create || create(CLASS, COMPILER, (void **)&compiler)) return words = "dxcompiler.dll cannot be loaded", false;
    }
    std::wstring wide(entry.begin(), entry.end());
    LPCWSTR arguments[] = {L"-E", wide.c_str(), L"-T", L"cs_6_2", L"-enable-16bit-types", L"-HV", L"2018", L"-no-warnings"};
    Source source = {text.data(), text.size(), 65001};
    Result *result = nullptr;
    HRESULT status = compiler->Compile(&source, arguments, 8, nullptr, RESULT, (void **)&result);
    if (!status) result->GetStatus(&status);
    Blob *errors = nullptr;
    if (status && result && !result->GetErrorBuffer(&errors) && errors) words.assign((char *)errors->GetBufferPointer(), errors->GetBufferSize());
    if (result) result->Release();
    return status == 0;
}

static int count(const std::string &text, const std::string &word) {
    int n = 0;
    for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) n++;
    return n;
}

// The bodies of the functions in naga's HLSL: a line "type name(...)" that is not indented, up to
// the next line "}".
static std::map<std::string, std::string> functions(const std::string &text) {
    std::map<std::string, std::string> found;
    std::istringstream lines(text);
    std::string line, name;
    while (std::getline(lines, line)) {
        size_t open = line.find('('), space = line.rfind(' ', open);
        bool starts = name.empty() && !line.empty() && line[0] != ' ' && line[0] != '[' && line[0] != '#';
        if (starts && open != std::string::npos && space != std::string::npos && line.find(';') == std::string::npos)
            name = line.substr(space + 1, open - space - 1);
        else if (!name.empty() && line[0] == '}') name.clear();
        else if (!name.empty()) found[name] += line + "\n";
    }
    return found;
}

// The barriers of a function, with those of the functions that it calls.
static int barriers(const std::map<std::string, std::string> &all, const std::string &name) {
    const std::string &body = all.at(name);
    int n = count(body, "GroupMemoryBarrierWithGroupSync();");
    for (auto &[other, text] : all)
        if (other != name && text.find("(") != std::string::npos) {
            int calls = count(body, " " + other + "(") + count(body, "(" + other + "(");
            if (calls) n += calls * barriers(all, other);
        }
    return n;
}

// Barriers in all sources, and shaders with more barriers in their code, because loops are unrolled.
static int seen = 0, more = 0;
// Barriers of the last shader, in its source and in FXC's code.
static int written = 0, left = 0;

static bool fxc(const std::string &text, const std::string &entry, std::string &words) {
    auto compile = (HRESULT(WINAPI *)(LPCVOID, SIZE_T, LPCSTR, void *, void *, LPCSTR, LPCSTR, UINT, UINT, Blob **, Blob **))GetProcAddress(
        LoadLibraryA("d3dcompiler_47.dll"), "D3DCompile");
    if (!compile) return words = "d3dcompiler_47.dll cannot be loaded", false;
    Blob *code = nullptr, *errors = nullptr;
    HRESULT status = compile(text.data(), text.size(), nullptr, nullptr, nullptr, entry.c_str(), "cs_5_1", 0, 0, &code, &errors);
    if (status && errors) words.assign((char *)errors->GetBufferPointer(), errors->GetBufferSize());
    if (status) return false;
    auto disassemble = (HRESULT(WINAPI *)(LPCVOID, SIZE_T, UINT, LPCSTR, Blob **))GetProcAddress(LoadLibraryA("d3dcompiler_47.dll"), "D3DDisassemble");
    Blob *listing = nullptr;
    if (disassemble(code->GetBufferPointer(), code->GetBufferSize(), 0, nullptr, &listing)) return true;
    std::string assembly((char *)listing->GetBufferPointer(), listing->GetBufferSize());
    written = barriers(functions(text), entry), left = count(assembly, "sync_g_t");
    seen += written, more += left > written;
    if (left < written) words = "BARRIERS: " + std::to_string(written) + " written, " + std::to_string(left) + " left";
    return left >= written;
}

// Processor time of this process in milliseconds.
static DWORD milliseconds() {
    FILETIME created, ended, kernel, user;
    GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user);
    auto ticks = [](FILETIME time) { return (unsigned long long)time.dwHighDateTime << 32 | time.dwLowDateTime; };
    return (DWORD)((ticks(kernel) + ticks(user)) / 10000);
}

int main(int count, char **arguments) {
    bool with_fxc = !strcmp(arguments[1], "fxc");
    int failed = 0, compiled = 0, slow = 0;
    DWORD longest = 0;
    std::string slowest;
    FILE *table = fopen(arguments[2], "a");
    if (!table) return printf("%s cannot be written\n", arguments[2]), 1;
    for (int i = 3; i < count; i++) {
        std::ifstream file(arguments[i], std::ios::binary);
        std::stringstream stream;
        stream << file.rdbuf();
        std::string text = stream.str(), words;
        // FXC has no operations across a subgroup.
        if (with_fxc && (text.find("WaveReadLaneAt") != std::string::npos || text.find("WaveActive") != std::string::npos)) continue;
        size_t numthreads = text.find("numthreads("), name = text.find("void ", numthreads), open = text.find('(', name);
        if (numthreads == std::string::npos || name == std::string::npos || open == std::string::npos) {
            printf("%s: no entry point\n", arguments[i]), failed++;
            continue;
        }
        std::string entry = text.substr(name + 5, open - name - 5);
        DWORD start = milliseconds();
        bool good = with_fxc ? fxc(text, entry, words) : dxc(text, entry, words);
        DWORD took = milliseconds() - start;
        fprintf(table, "%lu %d %d %s\n", took, written, left, arguments[i]);
        fflush(table);
        compiled++, failed += !good, slow += took > 2000;
        if (took > longest) longest = took, slowest = arguments[i];
        if (!good || took > 2000) printf("%s: %s, %lu ms %.400s\n", arguments[i], good ? "slow" : "WRONG", took, words.c_str());
        fflush(stdout);
    }
    printf("%d shaders, %d wrong, %d slow by %s; the slowest: %s, %lu ms\n", compiled, failed, slow, arguments[1], slowest.c_str(), longest);
    if (with_fxc) printf("%d barriers in the sources, in order; %d shaders have more in their code\n", seen, more);
    return failed || !compiled;
}
